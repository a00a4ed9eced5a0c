"""Where long documents are cut: all of the text is in the parts, and none is larger than asked for."""

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedq_core.errors import ModelError, UsageError
from embedq_core.items import Item
from embedq_core.parts import part_of
from embedq_producer import splitting
from embedq_producer.splitting import PartSize, Splitter
from support.models import RecordingModel


class Counting(RecordingModel):
    """Its tokens are words."""

    def count_tokens(self, item: str | bytes) -> int:
        return len(item.split())


def cut(text: str | bytes, size: PartSize, model: RecordingModel | None = None, prepend: str = "") -> list[str | bytes]:
    parts = Splitter(size, model or RecordingModel(), prepend=prepend).parts(Item("doc", text, '{"lang": "en"}'))
    assert [part.id for part in parts] == [f"doc#{number}" for number in range(len(parts))]
    assert all(part_of(part.id, part.metadata) is not None for part in parts)
    return [part.content for part in parts]


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("1500", PartSize(1500)),
        ("1500chars", PartSize(1500)),
        (" 300 tokens ", PartSize(300, "tokens")),
    ],
)
def test_a_size_has_a_unit(given: str, size: PartSize) -> None:
    assert PartSize.of(given, None) == size


@pytest.mark.parametrize(
    ("size", "overlap", "problem"),
    [
        ("0", None, "--chunk needs a size"),
        ("9" * 20, None, "--chunk needs a size"),
        ("-5", None, "--chunk needs a size"),
        ("many", None, "'many'"),
        ("5 words", None, "'5 words'"),
        ("10", 10, "--overlap must be at least 0 and below the 10"),
        (None, 5, "--overlap is for --chunk"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused(size: str | None, overlap: int | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        PartSize.of(size, overlap)


def test_cuts_are_between_paragraphs_where_they_can_be() -> None:
    text = "First paragraph. It has two sentences.\n\nSecond paragraph, a little longer than that."
    assert cut(text, PartSize(50)) == [
        "First paragraph. It has two sentences.",
        "Second paragraph, a little longer than that.",
    ]


def test_a_short_document_is_one_part_and_so_is_one_of_white_space_and_one_of_bytes() -> None:
    for content in ("short", "   \n ", b"\x00\x01"):
        assert cut(content, PartSize(100)) == [content]


texts = st.text(alphabet=st.sampled_from("ab .\n\té漢👩"), min_size=1, max_size=300)


@given(texts, st.integers(1, 40), st.integers(0, 39), st.integers(20, 90))
@settings(max_examples=100)
def test_nothing_but_white_space_is_left_out_and_no_part_is_too_large(
    text: str, size: int, overlap: int, window: int
) -> None:
    splitter = Splitter(PartSize(size, overlap=min(overlap, size - 1)), RecordingModel())._splitter
    end = 0
    for start, part in splitting._spans(splitter, text, max(window, 3 * size)):
        assert text[start : start + len(part)] == part
        assert len(part) <= size
        assert not text[end:start].strip()
        end = max(end, start + len(part))
    assert not text[end:].strip()


def test_an_overlap_repeats_the_end_of_the_part_before() -> None:
    parts = cut("one two three four five six seven eight nine ten", PartSize(20, overlap=8))
    assert len(parts) > 2
    for before, after in pairwise(parts):
        assert str(after).split()[0] in str(before).split()


def test_tokens_are_counted_by_the_model_if_it_can() -> None:
    text = " ".join(f"word{number}" for number in range(100))
    counting = Splitter(PartSize(7, "tokens"), Counting())
    assert not counting.estimated
    assert all(len(str(part.content).split()) <= 7 for part in counting.parts(Item("doc", text)))
    estimating = Splitter(PartSize(7, "tokens"), RecordingModel())
    assert estimating.estimated
    assert all(len(str(part.content)) <= 27 for part in estimating.parts(Item("doc", text)))


def test_a_model_that_fails_to_count_is_named() -> None:
    class Failing(RecordingModel):
        def count_tokens(self, item: str | bytes) -> int:
            raise RuntimeError(f"no tokenizer for {item!r}")

    with pytest.raises(ModelError, match=r"^the model recording failed: RuntimeError: no tokenizer for 'one two'$"):
        cut("one two", PartSize(3, "tokens"), Failing())


def test_every_part_has_the_text_that_stands_before() -> None:
    assert cut("one two three", PartSize(5), prepend="> ") == ["> one", "> two", "> three"]


def test_the_splitter_whose_time_grows_with_the_square_of_a_text_is_given_little_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splitter = Splitter(PartSize(1000), RecordingModel())
    given: list[int] = []

    class Watched:
        def chunk_indices(self, text: str, inner: Any = splitter._splitter) -> list[tuple[int, str]]:
            given.append(len(text))
            return list(inner.chunk_indices(text))

    monkeypatch.setattr(splitter, "_splitter", Watched())
    assert len(splitter.parts(Item("doc", "x" * 150_000))) == 150
    assert max(given) <= 64 * 1024


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    with pytest.raises(UsageError, match=r"pip install 'embedq\[chunk\]'"):
        Splitter(PartSize(10), RecordingModel())
