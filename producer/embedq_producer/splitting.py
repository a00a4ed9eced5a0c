"""Long documents in parts: where they are cut, so that each part has a size that the model can take in.

The cuts are those of semantic-text-splitter: between paragraphs, else lines, sentences, words, characters; as much in a
part as fits.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from embedq_core.errors import UsageError
from embedq_core.items import Item
from embedq_core.model import explained
from embedq_core.parts import parts_of
from embedq_plugins import EmbeddingModel

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter

TOKENS: Final = "tokens"
CHARACTERS: Final = "chars"
BYTES_A_TOKEN: Final = 4
INSTALL: Final = "pip install 'embedq[chunk]'"

_SIZE: Final = re.compile(rf"([1-9][0-9]{{0,8}}) *({TOKENS}|{CHARACTERS})?")

# The splitter's time grows with the square of a text without line breaks: it is given so many characters at a time, and
# parts that are far smaller.
_WINDOW: Final = 64 * 1024
_WINDOW_PARTS: Final = 64


@dataclass(frozen=True, slots=True)
class PartSize:
    """How large a part may be, and how much of the part before it begins with, both in `unit`."""

    size: int
    unit: str = CHARACTERS
    overlap: int = 0

    @classmethod
    def of(cls, size: str | None, overlap: int | None) -> "PartSize | None":
        """What `--chunk SIZE --overlap N` ask for. Raises UsageError for what makes no sense."""
        if size is None:
            if overlap is not None:
                raise UsageError("--overlap is for --chunk")
            return None
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise UsageError(f"--chunk needs a size such as 1500, 1500chars or 300tokens, not {size!r}")
        found = cls(int(match[1]), match[2] or CHARACTERS, overlap or 0)
        if not 0 <= found.overlap < found.size:
            raise UsageError(f"--overlap must be at least 0 and below the {found.size:,} of --chunk")
        return found


class Splitter:
    """Makes the parts of documents."""

    def __init__(self, size: PartSize, model: EmbeddingModel, *, prepend: str = "") -> None:
        """`prepend` is put before each part. Raises UsageError where the library is not installed."""
        self.estimated = size.unit == TOKENS and model.estimates_tokens
        """Whether tokens are estimated, since the model can't count them."""
        self._prepend = prepend

        def count(text: str) -> int:
            with explained(model):
                return model.count_tokens(text)

        self._splitter = _text_splitter(size, count)
        characters = size.size if size.unit == CHARACTERS else size.size * BYTES_A_TOKEN
        self._window = max(_WINDOW, _WINDOW_PARTS * characters)

    def parts(self, item: Item) -> list[Item]:
        """The parts of `item`: at least one, so that ids stay what they are when it grows. Bytes are never cut."""
        content = item.content
        if not isinstance(content, str):
            return parts_of(item, [(0, content)])
        spans = list(_spans(self._splitter, content, self._window)) or [(0, content)]
        return parts_of(item, [(start, self._prepend + text) for start, text in spans])


def _spans(splitter: "TextSplitter", text: str, window: int) -> Iterator[tuple[int, str]]:
    start = 0
    while True:
        found = splitter.chunk_indices(text[start : start + window])
        if start + window >= len(text):
            yield from ((start + index, part) for index, part in found)
            return
        # The last one may go on beyond the window, and is made again from where it starts; unless it starts with the
        # window: then white space follows.
        again = found[-1][0] if found else 0
        yield from ((start + index, part) for index, part in (found[:-1] if again else found))
        start += again or window


def _text_splitter(size: PartSize, count: Callable[[str], int]) -> "TextSplitter":
    try:
        from semantic_text_splitter import TextSplitter
    except ImportError as error:
        raise UsageError(f"--chunk needs a library that is not installed: {INSTALL}") from error
    if size.unit == CHARACTERS:
        return TextSplitter(size.size, overlap=size.overlap)
    return TextSplitter.from_callback(count, size.size, overlap=size.overlap)
