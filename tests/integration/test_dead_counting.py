"""Dead letters counted time and again, while others write."""

import time

import pytest

import embedq.status.dead_counting
from embedq.status.dead_counting import DeadCounter
from embedq.status.open_database import OpenDatabase
from embedq_core.settings import Settings
from embedq_store import DeadLetter, Store, Target, Write
from embedq_store.deadletters import DeadLetters
from support.chunks import RUN


async def bury(store: Store, id_: str, error: str = "ValueError") -> None:
    letter = DeadLetter(RUN, 0, "pets", id_, "text", None, "recording", error, "no", 1, time.time())
    await store.write(Write(Target("pets", "recording"), dead=[letter]))


async def test_what_others_write_is_counted_and_nothing_is_counted_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    summary = DeadLetters.summary

    async def counted(letters: DeadLetters) -> list[object]:
        nonlocal asked
        asked += 1
        return list(await summary(letters))

    monkeypatch.setattr(DeadLetters, "summary", counted)
    # However long counting takes on this machine.
    monkeypatch.setattr(embedq.status.dead_counting, "MOST_OF_TIME", 1e9)
    database = OpenDatabase(settings)
    counter = DeadCounter(database)
    try:
        assert await counter.count() == []
        assert not settings.database.exists(), "looking makes no database"
        async with await Store.open(settings.database) as store:
            assert await counter.count() == []
            await bury(store, "a")
            assert [tuple(part) for part in await counter.count()] == [("pets", "ValueError", 1)]
            before = asked
            assert [part.letters for part in await counter.count()] == [1]
            assert asked == before, "nothing has changed"
            await bury(store, "b")
            await bury(store, "c", "KeyError")
            assert [part.letters for part in await counter.count()] == [2, 1]
    finally:
        await database.close()


async def test_a_database_that_takes_the_place_of_another_is_counted_anew(settings: Settings) -> None:
    database = OpenDatabase(settings)
    counter = DeadCounter(database)
    try:
        for id_ in ("first", "second"):
            async with await Store.open(settings.database) as store:
                await bury(store, id_, f"Error{id_}")
            assert [part.error for part in await counter.count()] == [f"Error{id_}"]
            settings.database.rename(settings.database.with_suffix(f".{id_}"))
        assert await counter.count() == []
    finally:
        await database.close()
