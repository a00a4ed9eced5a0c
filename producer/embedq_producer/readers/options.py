"""How rows become items: what the options of `submit` and `ingest` say about every row."""

import codecs
from dataclasses import dataclass
from typing import Final

from embedq_core.errors import UsageError
from embedq_core.settings import Settings
from embedq_core.text import shown

_SYNTAX_BYTES: Final = 64 * 1024
_SYNTAX: Final = '\t\r\n ",:[]{}\\'


@dataclass(frozen=True)
class RowOptions:
    """What is the same for every row of a corpus. Raises UsageError for what makes no sense.

    `prefix` is put before ids, `prepend` before text content. `metadata` names columns that are added to
    the metadata. `encodings` are tried in order (none named: each source has its own). An item of more than
    `item_bytes` bytes of content and metadata is rejected. With `strict` the first rejected row ends it all.
    """

    prefix: str = ""
    prepend: str = ""
    metadata: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    item_bytes: int = Settings.item_bytes
    strict: bool = False

    def __post_init__(self) -> None:
        if self.item_bytes < 1:
            raise UsageError(f"an item can't be limited to {self.item_bytes} bytes")
        for name in self.encodings:
            if not _is_text_encoding(name):
                raise UsageError(f"{shown(name)!r} is no encoding of text; utf-8 and latin-1 are two")

    @property
    def row_bytes(self) -> int:
        """Bytes of the text of a row, its syntax and all, beyond which it isn't even looked at."""
        return self.item_bytes + _SYNTAX_BYTES

    def line_encodings(self) -> tuple[str, ...]:
        """The encodings to try for a line of a file of rows: UTF-8 unless others are named.

        Raises UsageError for one that isn't made on top of ASCII (such as utf-16): lines can't be told
        apart before it is decoded.
        """
        for name in self.encodings:
            if codecs.decode(_SYNTAX.encode("ascii"), name, "replace") != _SYNTAX:
                raise UsageError(
                    f"lines in {shown(name)} can't be told apart: convert the file first "
                    f"(iconv -f {shown(name)} -t UTF-8)"
                )
        return self.encodings or ("utf-8",)


def _is_text_encoding(name: str) -> bool:
    try:
        return isinstance("".encode(name), bytes) and isinstance(b"".decode(name), str)
    except (LookupError, ValueError):
        return False
