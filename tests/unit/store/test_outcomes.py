from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_store import Incoming, Known, Plan, Stored, decide
from embedq_store.outcomes import contents_to_find


def known(stored: dict[str, str | bytes], metadata: str | None = None, *, has_content: bool = True) -> Known:
    """A store that holds these contents under these ids; the vector of a content is its hash."""
    return Known(
        {id_: Stored(content_hash(content), metadata, has_content) for id_, content in stored.items()},
        {content_hash(content): content_hash(content) for content in stored.values()},
    )


def plan(items: list[Item], store: Known | None = None, *, keep: bool = True) -> Plan:
    return decide(Incoming.of(items), store or Known(), store=keep)


def test_nothing_in_is_nothing_to_do() -> None:
    assert plan([]) == Plan([], [], [], [], [], [], {})


def test_a_new_content_is_embedded() -> None:
    decided = plan([Item("a", "hound")])
    assert decided.embedded == [0]
    assert list(decided.inputs.values()) == [[0]]


def test_the_same_id_with_the_same_content_is_unchanged_and_nothing_is_written() -> None:
    decided = plan([Item("a", "hound")], known({"a": "hound"}))
    assert decided == Plan([0], [], [], [], [], [], {})


def test_an_id_whose_content_changed_is_embedded() -> None:
    assert plan([Item("a", "cat")], known({"a": "hound"})).embedded == [0]


def test_a_new_id_with_a_known_content_gets_a_copy_of_the_vector() -> None:
    decided = plan([Item("b", "hound")], known({"a": "hound"}))
    assert decided.reused == [(0, content_hash("hound"))]
    assert not decided.inputs


def test_an_id_that_changes_to_the_content_of_another_gets_a_copy_of_its_vector() -> None:
    decided = plan([Item("a", "cat")], known({"a": "hound", "b": "cat"}))
    assert decided.reused == [(0, content_hash("cat"))]


def test_two_ids_that_swap_contents_both_get_the_others_vector() -> None:
    decided = plan([Item("a", "cat"), Item("b", "hound")], known({"a": "hound", "b": "cat"}))
    assert decided.reused == [(0, content_hash("cat")), (1, content_hash("hound"))]
    assert not decided.unchanged
    assert not decided.inputs


def test_ten_equal_texts_are_one_input_of_the_model() -> None:
    decided = plan([Item(str(number), "hound") for number in range(10)])
    assert decided.embedded == [0]
    assert decided.copied == list(range(1, 10))
    assert list(decided.inputs.values()) == [list(range(10))]


def test_bytes_that_spell_a_text_are_another_input() -> None:
    decided = plan([Item("a", "hound"), Item("b", b"hound"), Item("c", b"hound"), Item("d", "hound")])
    assert decided.embedded == [0, 1]
    assert decided.copied == [2, 3]
    assert sorted(decided.inputs.values()) == [[0, 3], [1, 2]]


def test_of_two_items_with_one_id_the_last_wins() -> None:
    decided = plan([Item("a", "hound"), Item("a", "cat"), Item("a", "cow")])
    assert decided.superseded == [0, 1]
    assert decided.embedded == [2]


def test_a_superseded_item_costs_no_input() -> None:
    assert list(plan([Item("a", "hound"), Item("a", "cat")]).inputs.values()) == [[1]]


def test_a_superseded_item_does_not_hide_that_the_last_is_unchanged() -> None:
    assert plan([Item("a", "cat"), Item("a", "hound")], known({"a": "hound"})).unchanged == [1]


@pytest.mark.parametrize(
    ("stored", "incoming", "updated"),
    [
        (None, None, False),
        (None, '{"a": 1}', True),
        ('{"a": 1}', '{"a": 1}', False),
        ('{"a": 1}', '{"a": 2}', True),
        ('{"a": 1}', None, False),
    ],
)
def test_metadata_of_an_unchanged_item_is_brought_up_to_date(
    stored: str | None, incoming: str | None, updated: bool
) -> None:
    decided = plan([Item("a", "hound", incoming)], known({"a": "hound"}, stored))
    assert decided.unchanged == [0]
    assert decided.updates == ([0] if updated else [])


def test_missing_content_of_an_unchanged_item_is_filled_in_where_contents_are_kept() -> None:
    store = known({"a": "hound"}, has_content=False)
    assert plan([Item("a", "hound")], store).updates == [0]
    assert plan([Item("a", "hound")], store, keep=False).updates == []


def test_a_row_without_a_hash_is_embedded_again() -> None:
    store = Known({"a": Stored(None, None, False)}, {})
    assert plan([Item("a", "hound")], store).embedded == [0]


def test_only_contents_not_stored_under_their_own_id_are_looked_for_each_once() -> None:
    incoming = Incoming.of([Item("a", "hound"), Item("b", "cat"), Item("c", "cat"), Item("d", "hound")])
    by_id = known({"a": "hound", "b": "cow"}).by_id
    assert contents_to_find(incoming, by_id) == [content_hash("cat"), content_hash("hound")]


ids = st.sampled_from("abcd")
contents = st.sampled_from(["hound", "cat", "cow", "", b"hound", b"cat"])
items = st.lists(st.builds(Item, ids, contents, st.sampled_from([None, '{"a": 1}', '{"a": 2}'])), max_size=12)
stores = st.builds(
    known, st.dictionaries(ids, contents), st.sampled_from([None, '{"a": 1}']), has_content=st.booleans()
)


@given(items, stores, st.booleans())
def test_every_item_has_exactly_one_outcome(items: list[Item], store: Known, keep: bool) -> None:
    decided = plan(items, store, keep=keep)
    outcomes = chain(
        decided.unchanged,
        (index for index, _ in decided.reused),
        decided.embedded,
        decided.copied,
        decided.superseded,
    )
    assert sorted(outcomes) == list(range(len(items)))
    assert set(decided.updates) <= set(decided.unchanged)


@given(items, stores, st.booleans())
def test_each_different_content_is_one_input_that_serves_all_who_want_it(
    items: list[Item], store: Known, keep: bool
) -> None:
    decided = plan(items, store, keep=keep)
    assert [owners[0] for owners in decided.inputs.values()] == decided.embedded
    assert sorted(chain.from_iterable(decided.inputs.values())) == sorted(decided.embedded + decided.copied)
    for owners in decided.inputs.values():
        assert len({(type(items[index].content), items[index].content) for index in owners}) == 1
    given_to_model = [(type(items[index].content), items[index].content) for index in decided.embedded]
    assert len(set(given_to_model)) == len(given_to_model)


@given(items, stores, st.booleans())
def test_carrying_out_the_plan_leaves_each_id_with_its_last_content_and_its_vector(
    items: list[Item], store: Known, keep: bool
) -> None:
    decided = plan(items, store, keep=keep)
    hashes = {id_: stored.digest for id_, stored in store.by_id.items()}
    vectors = dict(hashes)  # the vector of a content is its hash, in this test
    for index, vector in decided.reused:
        hashes[items[index].id] = content_hash(items[index].content)
        vectors[items[index].id] = vector
    for owners in decided.inputs.values():
        for index in owners:
            hashes[items[index].id] = content_hash(items[index].content)
            vectors[items[index].id] = content_hash(items[owners[0]].content)
    wanted = {item.id: content_hash(item.content) for item in items}
    assert {id_: hashes[id_] for id_ in wanted} == wanted
    assert vectors == hashes


@given(items)
def test_what_was_carried_out_is_unchanged_the_next_time(items: list[Item]) -> None:
    last = {item.id: item.content for item in items}
    decided = plan(items, known(last), keep=True)
    assert not decided.reused
    assert not decided.inputs
    assert len(decided.unchanged) == len(last)
