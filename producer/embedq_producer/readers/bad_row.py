"""What is wrong with a row, before it is known where the row stands."""

from embedq_core.errors import EmbedqError
from embedq_core.text import excerpt


class BadRow(EmbedqError):  # noqa: N818 - reads as a sentence where it is caught
    """A row can't be made into an item: `problem` says why, `id` whose row it is, where that is known."""

    def __init__(self, problem: str, id: str | None = None) -> None:  # noqa: A002 - the item's own word
        super().__init__(problem)
        self.problem = problem
        self.id = id

    def at(self, where: str) -> str:
        """`where`, and the id of the row behind it: docs.jsonl line 17, id 'x'."""
        return where if self.id is None else f"{where}, id '{excerpt(self.id, 80)}'"


class MalformedRow(BadRow):
    """The text of a row breaks the syntax of its format: where it ends is a guess."""
