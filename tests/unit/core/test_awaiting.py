"""Models whose `embed_batch` is asynchronous, called as any other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import count
from typing import Any

import pytest

from embedq_core.errors import WrongVectorCount
from embedq_core.model import embed_all, embed_checked, embed_queries
from embedq_plugins import EmbeddingModel
from support.waiting import BOUND_SECONDS


class Asynchronous(EmbeddingModel):
    model_id = "asynchronous"

    async def embed_batch(self, items: Iterable[str | bytes]) -> list[list[float]]:
        await asyncio.sleep(0)
        return [[float(len(item))] for item in items]


class Yielding(EmbeddingModel):
    model_id = "yielding"

    async def embed_batch(self, items: Iterable[str | bytes]) -> AsyncIterator[list[float]]:
        for item in items:
            await asyncio.sleep(0)
            yield [float(len(item))]


class Doing(EmbeddingModel):
    """Does what it is told."""

    model_id = "doing"

    def __init__(self, function: Callable[[], Awaitable[Any]]) -> None:
        self.function = function

    async def embed_batch(self, _: Iterable[str | bytes]) -> Any:
        return await self.function()


@pytest.mark.parametrize("model", [Asynchronous(), Yielding()], ids=str)
def test_vectors_are_waited_for(model: EmbeddingModel) -> None:
    model.query_prefix = "?"
    assert embed_all(model, ["a", "bc"]).matrix.tolist() == [[1.0], [2.0]]
    assert embed_queries(model, ["a"]).tolist() == [[2.0]]
    assert model.embed("abc") == [3.0]
    assert list(model.embed_multi(["a", "bc"], 1)) == [[1.0], [2.0]]


async def test_where_an_event_loop_runs_already_as_well() -> None:
    assert Asynchronous().embed("abc") == [3.0]


def test_all_calls_share_one_loop_so_that_connections_can_be_kept() -> None:
    loops = set[int]()

    async def look() -> list[list[float]]:
        loops.add(id(asyncio.get_running_loop()))
        return [[1.0]]

    threads = [threading.Thread(target=Doing(look).embed, args=("a",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SECONDS)
    assert len(loops) == 1


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_whatever_it_raises_comes_out_and_the_loop_goes_on(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        embed_checked(Doing(fail), ["a"])
    assert caught.value is error
    assert Asynchronous().embed("abc") == [3.0]


def test_an_iterator_without_end_is_noticed_and_closed() -> None:
    closed = threading.Event()

    async def endless() -> AsyncIterator[list[float]]:
        try:
            for number in count():
                yield [float(number)]
        finally:
            closed.set()

    async def give() -> AsyncIterator[list[float]]:
        return endless()

    with pytest.raises(WrongVectorCount, match="more than 2 vectors"):
        embed_checked(Doing(give), ["a", "b"])
    assert closed.is_set()
