from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.items import Item
from embedq_core.parts import documents_of, is_complete, is_stale, parts_of
from embedq_producer.chunks import cut
from embedq_producer.seen import SeenIds

ids = st.text(alphabet="abcdef", min_size=1, max_size=2)
streams = st.lists(st.builds(Item, id=ids, content=st.text(max_size=20)), max_size=60)


@given(streams, st.integers(1, 7), st.integers(20, 200))
def test_written_in_the_order_of_their_dependencies_the_last_item_of_each_id_wins(
    items: list[Item], max_items: int, max_bytes: int
) -> None:
    written: dict[str, str | bytes] = {}
    # The worst order that workers may choose: always the last chunk whose predecessors are done.
    chunks = {piece.number: piece for piece in cut(items, max_items=max_items, max_bytes=max_bytes)}
    done: set[int] = set()
    while len(done) < len(chunks):
        number = max(number for number, piece in chunks.items() if number not in done and done >= set(piece.after))
        written.update((item.id, item.content) for item in chunks[number].items)
        done.add(number)
    assert written == {item.id: item.content for item in items}


@given(streams, st.integers(1, 7), st.integers(20, 200))
def test_no_id_stands_twice_in_a_chunk_and_every_replaced_item_is_counted(
    items: list[Item], max_items: int, max_bytes: int
) -> None:
    pieces = list(cut(items, max_items=max_items, max_bytes=max_bytes))
    assert all(len({item.id for item in piece.items}) == len(piece.items) for piece in pieces)
    assert sum(piece.duplicates for piece in pieces) == len(items) - len({item.id for item in items})


@given(streams, st.integers(1, 7))
def test_chunks_are_full_but_for_the_last(items: list[Item], max_items: int) -> None:
    sizes = [len(piece.items) for piece in cut(items, max_items=max_items, max_bytes=10**9)]
    assert all(size == max_items for size in sizes[:-1])
    assert all(0 < size <= max_items for size in sizes)


def test_a_chunk_stays_below_its_bytes_and_a_larger_item_is_one_of_its_own() -> None:
    items = [Item("a", "x" * 40), Item("b", "x" * 40), Item("big", "x" * 500), Item("c", "x" * 40)]
    pieces = list(cut(items, max_items=100, max_bytes=150))
    assert [[item.id for item in piece.items] for piece in pieces] == [["a", "b"], ["big"], ["c"]]


def test_numbers_count_from_zero() -> None:
    assert [piece.number for piece in cut([Item(str(n), "x") for n in range(5)], max_items=2, max_bytes=999)] == [
        0,
        1,
        2,
    ]


def test_an_empty_corpus_has_no_chunks() -> None:
    assert list(cut([], max_items=2, max_bytes=999)) == []


def test_chunks_are_cut_as_the_corpus_is_read() -> None:
    read = []

    def corpus() -> Iterator[Item]:
        for number in range(100):
            read.append(number)
            yield Item(str(number), "x")

    next(cut(corpus(), max_items=3, max_bytes=999))
    assert len(read) == 3


def test_seen_ids_are_found_in_the_latest_chunk_that_held_them() -> None:
    with SeenIds() as seen:
        assert seen.note(["a", "b"], 0) == ([], 0)
        assert seen.note(["b", "c"], 1) == ([0], 1)
        assert seen.note(["a", "b", "d"], 2) == ([0, 1], 2)
        assert seen.note([f"new {number}" for number in range(3000)], 3) == ([], 0)
        assert seen.note([f"new {number}" for number in range(3000)], 4) == ([3], 3000)


versions = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=8)


@given(versions, st.integers(1, 7), st.integers(40, 400))
def test_of_documents_in_parts_the_last_version_wins_whole(
    history: list[tuple[str, int]], max_items: int, max_bytes: int
) -> None:
    texts = [
        (doc, [f"{number} of version {version}" for number in range(count)])
        for version, (doc, count) in enumerate(history)
    ]
    items = [part for doc, parts in texts for part in parts_of(Item(doc, "whole"), [(0, part) for part in parts])]
    chunks = {piece.number: piece for piece in cut(items, max_items=max_items, max_bytes=max_bytes)}
    written: dict[str, Item] = {}
    done: set[int] = set()
    while len(done) < len(chunks):
        number = max(number for number, piece in chunks.items() if number not in done and done >= set(piece.after))
        written.update((item.id, item) for item in chunks[number].items)
        entries = [(item.id, item.metadata) for item in written.values()]
        for document in documents_of(chunks[number].items):
            if is_complete(document, entries):
                for id_, metadata in entries:
                    if is_stale(document, id_, metadata):
                        del written[id_]
        done.add(number)
    last = dict(texts)
    assert {item.id: item.content for item in written.values()} == {
        f"{doc}#{number}": part for doc, parts in last.items() for number, part in enumerate(parts)
    }


@pytest.mark.parametrize(("max_items", "max_bytes"), [(5, 10**9), (100, 350)])
def test_a_document_is_not_parted_between_chunks_if_it_fits_into_one(max_items: int, max_bytes: int) -> None:
    items = [part for doc in "abc" for part in parts_of(Item(doc, "whole"), [(0, "part")] * 3)]
    pieces = list(cut(items, max_items=max_items, max_bytes=max_bytes))
    assert [[item.id for item in piece.items] for piece in pieces] == [
        [f"{doc}#{n}" for n in range(3)] for doc in "abc"
    ]
    assert [piece.after for piece in pieces] == [[], [], []]


@given(st.lists(st.lists(ids, max_size=6, unique=True), max_size=12), st.integers(1, 8))
def test_seen_ids_that_went_to_disk_are_found_as_those_in_memory(chunks: list[list[str]], in_memory: int) -> None:
    latest: dict[str, int] = {}
    with SeenIds(in_memory) as seen:
        for number, some in enumerate(chunks):
            earlier = [latest[id_] for id_ in some if id_ in latest]
            assert seen.note(some, number) == (sorted(set(earlier)), len(earlier))
            latest.update(dict.fromkeys(some, number))


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=8), max_size=20), st.integers(1, 40))
def test_a_key_is_unseen_once_wherever_it_is_kept(groups: list[list[int]], in_memory: int) -> None:
    met: set[int] = set()
    with SeenIds(in_memory) as seen:
        for keys in groups:
            assert seen.unseen(keys) == [key not in met for key in keys]
            met.update(keys)
