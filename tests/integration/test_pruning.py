"""Removing what a source no longer has: from a real database, a source read from a real file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from embedq_core.digests import content_hash
from embedq_core.errors import SourceError
from embedq_core.items import Item
from embedq_core.parts import parts_of
from embedq_core.settings import Settings
from embedq_core.vectors import encode
from embedq_producer.corpus import open_corpus
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.pruning import Compared, Pruned, Verdict, obstacle, pruning_asked_for, verdict
from embedq_producer.submission import Submission, new_submission
from embedq_store import Row, Store, Target, Write
from embedq_store.letters import DeadLetter

RUN = "20200101-000000-aaaaa"


async def put(store: Store, *items: Item, collection: str = "docs") -> None:
    rows = [Row(item, content_hash(item.content), encode([1.0, 2.0])) for item in items]
    await store.write(Write(Target(collection, "recording"), rows))


async def bury(store: Store, *ids: str, died: float = 1.0) -> None:
    letters = [DeadLetter(RUN, 0, "docs", id_, "bad", None, "recording", "E", "m", 1, died) for id_ in ids]
    await store.write(Write(Target("docs", "recording"), dead=letters))


async def ids(store: Store, collection: str = "docs") -> list[str]:
    found = await store.find_collection(collection)
    assert found is not None
    return [each.id async for page in store.prunable(found).entries() for each in page]


def read(settings: Settings, rows: Sequence[dict[str, Any]], **options: Any) -> tuple[CorpusRequest, Path]:
    path = settings.database.with_name("source.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CorpusRequest("docs", [str(path)], prune=True, **options), path


async def prune(
    settings: Settings,
    *rows: dict[str, Any],
    says: bool = False,
    stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Pruned:
    """Read `rows` as a source, then prune; somebody who is asked `says` so."""
    request, _ = read(settings, rows, **options)
    with pruning_asked_for(request, settings) as pruning:
        assert pruning is not None
        reader = open_corpus(request, settings, lambda error: None)
        pruning.watch(reader)
        submission = new_submission("docs", "recording", "source")
        submission.items = len(list(reader))
        submission.skipped = reader.rejected
        return await pruning.run(submission, lambda question: says, stop)


def row(id_: str, content: str = "text", **more: Any) -> dict[str, Any]:
    return {"id": id_, "content": f"{content} of {id_}", **more}


def items(*ids_: str) -> list[Item]:
    return [Item(id_, f"text of {id_}") for id_ in ids_]


async def test_what_is_gone_goes_and_the_rest_stays(store: Store, settings: Settings) -> None:
    odd = ["ü/é 1", "a#0", "a#b", "nul\0l", "nul", "'\"", "😀"]
    await put(store, *items(*odd, "gone"))
    assert await prune(settings, *map(row, odd)) == Pruned(1)
    assert await ids(store) == sorted(odd)


async def test_an_id_is_not_taken_for_another_that_begins_the_same_and_holds_a_nul(
    store: Store, settings: Settings
) -> None:
    await put(store, *items("a", "b", "c", "d", "e", "a\0b"))
    assert await prune(settings, *map(row, "abcde")) == Pruned(1)
    assert await ids(store) == ["a", "b", "c", "d", "e"]


async def test_only_what_has_the_prefix_goes(store: Store, settings: Settings) -> None:
    await put(store, *items("p/one", "p/two", "q/one", "o"))
    assert await prune(settings, row("one"), prefix="p/", yes=True) == Pruned(1)
    assert await ids(store) == ["o", "p/one", "q/one"]


async def test_parts_stay_while_their_document_is_in_the_source_and_go_with_it(
    store: Store, settings: Settings
) -> None:
    here = parts_of(Item("here", "one two"), [(0, "one"), (4, "two")])
    gone = parts_of(Item("gone", "six ten"), [(0, "six"), (4, "ten")])
    await put(store, *here, *gone, *items("here#9", "gone#x"))
    assert await prune(settings, row("here"), row("gone#x"), yes=True) == Pruned(3)
    # 'here#9' only looks like a part: the source doesn't have it.
    assert await ids(store) == ["gone#x", "here#0", "here#1"]


async def test_a_source_of_parts_keeps_their_document(store: Store, settings: Settings) -> None:
    parts = parts_of(Item("doc", "one two"), [(0, "one"), (4, "two")])
    await put(store, *parts, *items("doc"))
    rows = [{"id": part.id, "content": part.content, "metadata": json.loads(part.metadata or "")} for part in parts]
    assert await prune(settings, *rows) == Pruned(0)


async def test_with_chunk_the_documents_count(store: Store, settings: Settings) -> None:
    await put(store, *parts_of(Item("doc", "one two"), [(0, "one"), (4, "two")]), *items("gone"))
    request, _ = read(settings, [row("doc")], chunk="3chars", yes=True)
    with pruning_asked_for(request, settings) as pruning:
        assert pruning is not None
        reader = open_corpus(request, settings, lambda error: None)
        reader.split = lambda item: parts_of(item, [(0, "new")])
        pruning.watch(reader)
        assert [item.id for item in reader] == ["doc#0"]
        assert await pruning.run(new_submission("docs", "recording", "x"), lambda _: False, lambda: False) == Pruned(1)
    assert await ids(store) == ["doc#0", "doc#1"]


async def test_dead_letters_of_what_is_gone_go_and_later_ones_stay(store: Store, settings: Settings) -> None:
    await put(store, *items("a", "b", "c", "d", "e", "gone"))
    await bury(store, "gone", "never stored", "a")
    await bury(store, "later", died=9e9)
    assert await prune(settings, *map(row, "abcde")) == Pruned(1)
    assert {letter.id for letter in await store.dead.letters()} == {"a", "later"}


async def test_what_is_made_anew_beside_the_collection_goes_too(store: Store, settings: Settings) -> None:
    await put(store, *items("a", "b", "c", "d", "e", "gone"))
    await put(store, *items("a", "gone"), collection="docs@next")
    await prune(settings, *map(row, "abcde"))
    assert await ids(store, "docs@next") == ["a"]


async def test_what_was_stored_since_it_was_looked_at_stays(store: Store) -> None:
    await put(store, *items("a", "b"))
    prunable = store.prunable(await store.collection("docs"))
    assert [each.id async for page in prunable.entries() for each in page] == ["a", "b"]
    await put(store, *items("b", "c"))
    assert await prunable.delete(["a", "b", "c"]) == 1
    assert await ids(store) == ["b", "c"]


async def test_content_under_a_new_id_is_kept_until_it_is_stored_there(store: Store, settings: Settings) -> None:
    """Else the worker, coming later, would pay for a text that was there a moment ago."""
    await put(store, Item("old", "moved"), Item("older", "moved"), *items("a", "b"))
    source = (row("a"), row("b"), {"id": "new", "content": "moved"})
    assert await prune(settings, *source, yes=True) == Pruned(0, moved=2)
    assert await ids(store) == ["a", "b", "old", "older"]
    await put(store, Item("new", "moved"))
    assert await prune(settings, *source, yes=True) == Pruned(2)
    assert await ids(store) == ["a", "b", "new"]


async def test_much_goes_only_where_somebody_says_so(store: Store, settings: Settings) -> None:
    await put(store, *items("a", "b", "c", "d", "e"))
    four = list(map(row, "abcd"))
    assert await prune(settings, *four[:3]) == Pruned(
        refused="2 of 5 entries would go, more than 20%: say --yes if that is right"
    )
    assert await prune(settings, *four, says=False) == Pruned(1)
    assert await prune(settings, row("a"), says=True) == Pruned(3)
    assert await ids(store) == ["a"]


async def test_a_source_without_anything_empties_nothing_whoever_says_yes(store: Store, settings: Settings) -> None:
    """A folder that is not mounted looks like that, to a command that runs at night with --yes."""
    await put(store, *items("a", "b"))
    refused = Pruned(
        refused="the source is empty, so 2 of 2 entries would go: is it mounted? Say --allow-empty if that is right"
    )
    assert await prune(settings, says=True) == refused
    assert await prune(settings, yes=True) == refused
    assert await ids(store) == ["a", "b"]
    assert (await prune(settings, allow_empty=True)).refused is not None, "it is more than a fifth still"
    assert await prune(settings, yes=True, allow_empty=True) == Pruned(2)
    assert await prune(settings, yes=True) == Pruned(0), "where there is nothing, nothing has to be said"


async def test_nor_does_it_take_the_dead_letters_where_these_are_all_that_there_is(
    store: Store, settings: Settings
) -> None:
    await put(store, *items("another"))
    await bury(store, "p/dead", "another/dead")
    refused = (await prune(settings, prefix="p/", yes=True)).refused
    assert refused is not None
    assert refused.startswith("the source is empty, so 1 dead letter would go: is it mounted?")
    assert len(await store.dead.letters()) == 2
    assert await prune(settings, prefix="p/", allow_empty=True) == Pruned()
    assert [letter.id for letter in await store.dead.letters()] == ["another/dead"]


async def test_a_source_that_is_not_known_whole_removes_nothing(store: Store, settings: Settings) -> None:
    await put(store, *items("a", "gone"))
    bad = {"id": "a", "content": None}
    assert (await prune(settings, bad, yes=True)).refused == "1 row of the source could not be read: see above"
    assert (await prune(settings, row("a"), yes=True, stop=lambda: True)).refused == "the reading was interrupted"
    assert await ids(store) == ["a", "gone"]


async def test_where_there_is_nothing_yet_there_is_nothing_to_prune(settings: Settings, store: Store) -> None:
    assert await prune(settings, row("a")) == Pruned(0)
    await store.close()
    settings.database.unlink()
    with pytest.raises(Exception, match="is not there: run it where"):
        await prune(settings, row("a"))


async def test_of_very_many_each_is_told_from_the_others(store: Store, settings: Settings) -> None:
    many = [f"{number:05}" for number in range(12_000)]
    await put(store, *items(*many))
    assert await prune(settings, *map(row, many[::2]), yes=True) == Pruned(6000)
    assert await ids(store) == many[::2]


def test_the_decision() -> None:
    assert verdict(Compared(100, 20), 80) is Verdict.PRUNE
    assert verdict(Compared(100, 21), 79) is Verdict.ASK
    assert verdict(Compared(100, 21), 79, yes=True) is Verdict.PRUNE
    assert verdict(Compared(100, 100), 0, yes=True) is Verdict.EMPTY
    assert verdict(Compared(100, 100), 0, allow_empty=True) is Verdict.ASK
    assert verdict(Compared(100, 100), 0, yes=True, allow_empty=True) is Verdict.PRUNE
    assert verdict(Compared(100, 1), 0) is Verdict.EMPTY, "entries under the prefix, of which some stay"
    assert verdict(Compared(), 0) is Verdict.PRUNE
    whole = new_submission("docs", "recording", "x")
    assert obstacle(whole, interrupted=False) is None
    broken = Submission(whole.run, problem=SourceError("x"))
    assert obstacle(broken, interrupted=False) == "the source could not be read to its end"


async def test_who_interrupts_the_comparison_is_asked_nothing_and_nothing_goes(
    store: Store, settings: Settings
) -> None:
    await put(store, *items("a", "b"))
    asked = iter([False])
    pruned = await prune(settings, row("a"), says=True, stop=lambda: next(asked, True))
    assert pruned == Pruned(refused="interrupted: the next --prune goes on")
    assert await ids(store) == ["a", "b"]
