"""A turn: one process has it, it is renewed while it is held, and free when its holder is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import embedq_jobs.turns
from embedq_jobs import Queue
from embedq_jobs.turns import sign_of_life, turn
from support.waiting import BOUND_SECONDS, Eventually

KEY = "embedq:turn:pets"


async def test_one_has_it_and_the_next_when_it_is_given_back(queue: Queue) -> None:
    async with turn(queue.redis, KEY, queue.where, 15) as mine:
        assert mine is not None
        async with turn(queue.redis, KEY, queue.where, 15) as theirs:
            assert theirs is None
        assert await queue.redis.exists(KEY), "it was not theirs to give back"
    async with turn(queue.redis, KEY, queue.where, 15) as theirs:
        assert theirs is not None


async def test_one_that_was_lost_is_known_to_be_and_stays_with_who_has_it(queue: Queue, eventually: Eventually) -> None:
    async with turn(queue.redis, KEY, queue.where, 0.03) as mine:
        assert mine is not None
        assert not mine.lost
        # As if this process had slept for longer than it lives.
        await queue.redis.set(KEY, "another's")

        async def lost() -> bool:
            return mine.lost

        await eventually(lost)
    assert await queue.redis.get(KEY) == b"another's"


async def test_who_has_it_is_seen_to_live_and_who_has_died_is_not(queue: Queue, eventually: Eventually) -> None:
    signs = set()

    async def seen_often() -> bool:
        signs.add(await sign_of_life(queue.redis, KEY, queue.where))
        return len(signs) > 2

    async with turn(queue.redis, KEY, queue.where, 0.3) as mine:
        await eventually(seen_often)
        assert mine is not None
        left = await queue.redis.get(KEY)
    assert await sign_of_life(queue.redis, KEY, queue.where) is None
    # One that has died renews nothing, and what it had says nothing else until it is over.
    await queue.redis.set(KEY, left, px=15_000)
    assert await sign_of_life(queue.redis, KEY, queue.where) == left


async def test_it_is_free_when_its_holder_has_died(queue: Queue, eventually: Eventually) -> None:
    await queue.redis.set(KEY, "of a process that was killed", px=60_000)

    async def free() -> bool:
        async with turn(queue.redis, KEY, queue.where, 15) as held:
            return held is not None

    assert not await free()
    await queue.redis.pexpire(KEY, 20)
    await eventually(free)


async def test_whoever_is_stopped_while_asking_for_it_does_not_keep_it(queue: Queue) -> None:
    asked, answered = asyncio.Event(), queue.redis.set

    async def answering_late(*arguments: object, **options: object) -> object:
        answer = await answered(*arguments, **options)  # type: ignore[arg-type]
        asked.set()
        await asyncio.Event().wait()
        return answer

    async def asking() -> None:
        async with turn(queue.redis, KEY, queue.where, 15):
            raise AssertionError("there was no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue.redis, "set", answering_late)
        task = asyncio.create_task(asking())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with turn(queue.redis, KEY, queue.where, 15) as held:
        assert held is not None


async def test_one_that_is_cancelled_while_it_gives_its_turn_back_gives_it_back(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate, register = asyncio.Event(), asyncio.Event(), queue.redis.register_script

    def held_up(script: str) -> Callable[..., Awaitable[Any]]:
        async def call(**given: Any) -> Any:
            asked.set()
            await gate.wait()
            return await register(script)(**given)

        return call

    async def take() -> None:
        async with turn(queue.redis, KEY, queue.where, 15):
            monkeypatch.setattr(queue.redis, "register_script", held_up)

    taking = asyncio.create_task(take())
    await asked.wait()
    for _ in range(2):  # whoever stops it may say so again
        taking.cancel()
        await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await queue.redis.exists(KEY) == 0


async def test_a_redis_that_says_nothing_keeps_nobody_from_ending(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, register = asyncio.Event(), queue.redis.register_script

    def silent(script: str) -> Callable[..., Awaitable[Any]]:
        async def call(**given: Any) -> Any:
            await gate.wait()
            return await register(script)(**given)

        return call

    async def take() -> None:
        async with turn(queue.redis, KEY, queue.where, 15):
            monkeypatch.setattr(queue.redis, "register_script", silent)

    monkeypatch.setattr(embedq_jobs.turns, "GIVE_BACK_SECONDS", 0.05)
    taking = asyncio.create_task(take())
    ended, _ = await asyncio.wait([taking], timeout=BOUND_SECONDS)
    still_its = await queue.redis.pttl(KEY)
    gate.set()
    await taking
    assert ended
    assert 0 < still_its <= 15_000, "it is over some time in any case"
