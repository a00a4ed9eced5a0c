"""Bytes to text, by the encodings that a corpus may have."""

import codecs
from collections.abc import Sequence

from embedq_producer.readers.bad_row import BadRow


def decoded(data: bytes, encodings: Sequence[str]) -> str:
    """`data` as text in the first of `encodings` that fits. Raises BadRow where none does."""
    problem = ""
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            # What is said is about the first encoding, the likeliest one. Some codecs point beyond the end.
            byte = data[error.start : error.start + 1].hex()
            problem = problem or (f"byte 0x{byte} at {error.start}" if byte else "it breaks off")
        except UnicodeError:
            problem = problem or "malformed"
    raise BadRow(f"isn't text in {' or '.join(encodings)} ({problem}): name its encoding with --encoding, or mend it")


def starts_with_utf16_mark(data: bytes) -> bool:
    """Whether `data` begins with the byte order mark of UTF-16 (UTF-32's begins with the same bytes)."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
