"""What a dry run counts."""

import pytest

from embedq_core.digests import content_hash
from embedq_core.items import Item
from embedq_plugins import EmbeddingModel
from embedq_producer.chunks import cut
from embedq_producer.dry_run import Forecast, Forecaster
from embedq_producer.seen import SeenIds
from embedq_store import Incoming, Known
from embedq_store.outcomes import Stored
from support.models import RecordingModel


class CountingModel(RecordingModel):
    """Counts words, but not those of a poem."""

    def count_tokens(self, item: str | bytes) -> int:
        if "poem" in str(item):
            raise ValueError(item)
        return len(item.split())


def forecast(model: EmbeddingModel, items: list[Item], known: Known | None = None) -> Forecast:
    """Of `items`, two in a chunk."""
    with SeenIds() as contents:
        forecaster = Forecaster(model, contents, store=True)
        for piece in cut(items, max_items=2, max_bytes=10_000):
            forecaster.add(piece, Incoming.of(piece.items), known or Known())
    return forecaster.forecast


def test_tokens_are_those_that_the_model_counts_of_what_it_would_be_given() -> None:
    known = Known({"a": Stored(content_hash("old"), None, True), "b": Stored(content_hash("as it was"), None, True)})
    items = [Item("a", "two words"), Item("b", "as it was"), Item("c", "two words"), Item("d", "one more text")]
    found = forecast(CountingModel(), items, known)
    assert (found.changed, found.unchanged, found.reused, found.new) == (1, 1, 1, 1)
    assert (found.tokens, found.tokens_estimated) == (2 + 3, False)
    assert found.characters == len("two words") + len("one more text")


@pytest.mark.parametrize("model", [RecordingModel(), CountingModel()])
def test_where_the_model_can_not_count_it_is_estimated_and_said(model: EmbeddingModel) -> None:
    found = forecast(model, [Item("a", "a poem of bytes"), Item("b", "x" * 400), Item("c", b"\0" * 8)])
    assert (found.tokens, found.tokens_estimated) == (15 // 4 + 1 + 101 + 3, True)
    assert (found.characters, found.bytes) == (415, 8)


def test_bytes_that_spell_a_text_are_another_content() -> None:
    found = forecast(RecordingModel(), [Item("a", "x"), Item("b", "y"), Item("c", b"x"), Item("d", "x")])
    assert (found.new, found.reused) == (3, 1)
