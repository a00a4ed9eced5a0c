"""A model that somebody has to mend: who ends by itself leaves what waits for it, and says so; who stays waits."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

import embedq_worker.failures
import embedq_worker.lane
import embedq_worker.service
from embedq_core.errors import ModelMisconfigured
from embedq_core.settings import Settings
from embedq_jobs import Queue, Scope
from embedq_store import Store
from embedq_worker.service import ServiceOptions, serve
from support.chunks import RUN, chunk, install, items, submit
from support.models import FaultyModel, RecordingModel
from support.waiting import BOUND_SECONDS, Eventually
from support.working import BURST, burst, complete, expected, nothing_is_left, stored, worker

OTHER = "20261231-235959-x7kqc"


class Keyed(FaultyModel):
    """Refuses everything until its key is right."""

    def __init__(self) -> None:
        super().__init__(self._refuse, "recording", batch_size=10)
        self.right = False

    def _refuse(self, _: list[str | bytes]) -> None:
        if not self.right:
            raise ModelMisconfigured("HTTP 401: the key is wrong")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Keyed:
    """A model without its key, beside one that is in order; neither is waited for any longer than it has to be."""
    monkeypatch.setattr(embedq_worker.service, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(embedq_worker.lane, "UNMENDED_SECONDS", 0.05)
    monkeypatch.setattr(embedq_worker.failures, "MEND_SECONDS", 0.3)
    install(monkeypatch, found := Keyed(), RecordingModel("other"))
    return found


async def ended(settings: Settings, queue: Queue, store: Store, options: ServiceOptions) -> str:
    """What a worker says that ends because of a model."""
    with pytest.raises(ModelMisconfigured) as caught:
        async with asyncio.timeout(BOUND_SECONDS):
            await serve(settings, options, queue, store, asyncio.Event())
    return str(caught.value)


async def test_a_burst_does_what_it_can_and_leaves_what_waits_for_a_model_that_has_to_be_mended(
    settings: Settings, queue: Queue, store: Store, model: Keyed
) -> None:
    await submit(queue, chunk(items(25)), chunk(items(5, 25), 1))
    await submit(queue, chunk(items(40), model_id="other", run=OTHER, collection="plants"))
    said = await ended(settings, queue, store, BURST)
    assert said == "recording: HTTP 401: the key is wrong; 2 chunks stay queued until that is mended"
    assert await complete(queue, OTHER)
    assert not await complete(queue)
    assert await store.dead.letters() == []
    assert await queue.live_workers() == []
    model.right = True
    await burst(settings, queue, store)
    assert await stored(store) == expected(items(30))
    await nothing_is_left(queue)


async def test_what_is_paused_beside_it_is_left_too_and_alone_is_no_problem(
    settings: Settings, queue: Queue, store: Store, model: Keyed
) -> None:
    await submit(queue, chunk(items(5)))
    await queue.pausing.pause(Scope("model", "other"))
    await submit(queue, chunk(items(40), model_id="other", run=OTHER))
    assert (await ended(settings, queue, store, BURST)).startswith("recording: ")
    model.right = True
    await burst(settings, queue, store)
    assert await complete(queue)
    assert await queue.length("other") == 1


async def test_a_worker_that_needs_the_model_ends_and_one_that_needs_another_does_not(
    settings: Settings, queue: Queue, store: Store, model: Keyed, eventually: Eventually
) -> None:
    await submit(queue, chunk(items(5)))
    async with worker(settings, replace(ServiceOptions(lease_seconds=1), needs="other")):
        await eventually(tried_again(model))
        await submit(queue, chunk(items(40), model_id="other", run=OTHER, collection="plants"))
        await eventually(lambda: complete(queue, OTHER))
    said = await ended(settings, queue, store, replace(ServiceOptions(lease_seconds=1), needs="recording"))
    assert said == "recording: HTTP 401: the key is wrong; 1 chunk stays queued until that is mended"


async def test_a_worker_that_stays_goes_on_waiting_and_goes_on_when_it_is_mended(
    settings: Settings, queue: Queue, model: Keyed, eventually: Eventually
) -> None:
    await submit(queue, chunk(items(5)))
    async with worker(settings):
        await eventually(tried_again(model))
        model.right = True
        await eventually(lambda: complete(queue, RUN))


def tried_again(model: Keyed) -> Callable[[], Awaitable[bool]]:
    """Whether a worker has looked whether the model has been mended."""

    async def look() -> bool:
        return len(model.batches) > 1

    return look
