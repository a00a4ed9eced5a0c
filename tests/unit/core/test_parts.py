"""Parts know what they are, and nothing else is taken for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_core.items import Item
from embedq_core.parts import (
    Document,
    Part,
    belongs_to,
    documents_of,
    is_complete,
    is_stale,
    part_of,
    parts_of,
)


def said(**changes: object) -> str:
    return json.dumps({"parent": "doc", "part": 1, "parts": 3, "start": 40} | changes)


@given(st.text(), st.dictionaries(st.text(), st.floats(allow_nan=True) | st.integers() | st.text(), max_size=3))
def test_parts_of_any_document_say_what_they_are(id_: str, metadata: dict[str, object]) -> None:
    parts = parts_of(Item(id_, "one two", json.dumps(metadata)), [(0, "one"), (4, "two")])
    assert [part_of(part.id, part.metadata) for part in parts] == [Part(Document(id_, 2), number) for number in (0, 1)]
    assert documents_of(parts) == {Document(id_, 2)}
    for part in parts:
        assert {"parent", "part", "parts", "start"} | metadata.keys() == json.loads(part.metadata or "").keys()


def test_what_makes_a_part_takes_the_place_of_the_same_keys() -> None:
    (part,) = parts_of(Item("doc", "text", '{"parent": "someone", "lang": "en"}'), [(0, "text")])
    assert json.loads(part.metadata or "") == {"parent": "doc", "lang": "en", "part": 0, "parts": 1, "start": 0}


@pytest.mark.parametrize(
    ("id_", "metadata"),
    [
        ("doc#1", None),
        ("doc#1", "[1]"),
        ("doc#1", "no json"),
        ("doc#1", '{"parent": "doc"}'),
        ("doc#1", said(part=0)),
        ("doc#1", said(part=True)),
        ("doc#1", said(parts=1)),
        ("doc#1", said(parts=2**63)),
        ("doc#1", said(parent="other")),
        ("doc#1", said(start=-1)),
        ("doc#1", said(start=None)),
        ("doc#01", said()),
        ("doc#1#", said()),
        ("doc", said()),
    ],
)
def test_an_entry_is_a_part_only_if_id_and_metadata_agree(id_: str, metadata: str | None) -> None:
    assert part_of("doc#1", said()) == Part(Document("doc", 3), 1)
    assert part_of(id_, metadata) is None
    assert belongs_to(id_, metadata) == id_


def test_the_last_number_of_an_id_counts() -> None:
    (part,) = parts_of(Item("issue#7", "text"), [(0, "text")])
    assert part.id == "issue#7#0"
    assert belongs_to(part.id, part.metadata) == "issue#7"
    # Neither an entry of that name nor one of its parts is left over from `issue`.
    assert not is_stale(Document("issue", 1), "issue#7", None)
    assert not is_stale(Document("issue", 1), part.id, part.metadata)


def test_left_over_are_parts_beyond_the_last_and_the_text_as_it_was_before_it_was_split() -> None:
    document = Document("doc", 1)
    assert is_stale(document, "doc#1", said())
    assert is_stale(document, "doc", '{"any": "metadata"}')
    assert not is_stale(Document("doc", 2), "doc#1", said())
    # What has the document's id may itself be a part of another.
    assert not is_stale(Document("doc#1", 4), "doc#1", said())


def test_a_document_is_complete_with_all_parts_of_one_version() -> None:
    new, old = (parts_of(Item("doc", "text"), [(0, "text")] * count) for count in (2, 3))
    assert is_complete(Document("doc", 2), [(part.id, part.metadata) for part in new])
    assert not is_complete(Document("doc", 2), [(part.id, part.metadata) for part in (new[0], old[1], old[2])])
    assert not is_complete(Document("doc", 2), [(part.id, part.metadata) for part in (new[0], new[0])])
