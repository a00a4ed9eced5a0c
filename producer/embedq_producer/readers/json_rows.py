"""JSON objects to items, one after the other, at the speed of msgspec."""

import json
import re
from typing import Any, Final

import msgspec

from embedq_core.items import Item
from embedq_producer.readers.bad_row import BadRow, MalformedRow
from embedq_producer.readers.decoding import decoded
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import finished_item, id_of, item_of

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class JsonRows:
    """Makes items of the texts of JSON objects; knows which encodings they may be in."""

    def __init__(self, options: RowOptions) -> None:
        self._options = options
        self._encodings = options.line_encodings()
        self._utf8_first = self._encodings[0].lower().replace("_", "-") in ("utf-8", "utf8")
        self._plain = None if options.metadata else _PLAIN

    def item(self, data: bytes) -> Item:
        """The item in `data`. Raises BadRow; MalformedRow where `data` is no JSON."""
        if not self._utf8_first and not data.isascii():
            return self._any_item(decoded(data, self._encodings))
        if self._plain is not None:
            try:
                row = self._plain.decode(data)
            except (ValueError, RecursionError):
                # Another kind of row, or a bad one: the way for any row knows what it is.
                return self._any_item(data)
            return finished_item(id_of(row.id), row.content, row.metadata, self._options)
        return self._any_item(data)

    def _any_item(self, data: bytes | str) -> Item:
        try:
            row = _ANY.decode(data)
        except msgspec.ValidationError as error:
            if "Expected `object`" in str(error):
                raise BadRow("isn't a JSON object, which every row must be") from error
            raise BadRow("holds a number that is out of range") from error
        except RecursionError as error:
            raise BadRow("is nested too deeply") from error
        except UnicodeDecodeError:
            if isinstance(data, bytes):
                return self._any_item(decoded(data, self._encodings))
            raise  # pragma: no cover - text can't fail to decode
        except msgspec.MsgspecError as error:
            row = _tolerated(data, error)
        return item_of(row, self._options)


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The row that most corpora are made of."""

    id: Any  # a list or an object as well: what is no id is said where all ids are checked
    content: str
    metadata: dict[str, Any] | None = None


_PLAIN: Final = msgspec.json.Decoder(_Plain)
_ANY: Final = msgspec.json.Decoder(dict[str, Any])


def _tolerated(data: bytes | str, error: msgspec.MsgspecError) -> dict[str, Any]:
    """The object in text that msgspec refuses only for a lone surrogate, so that it can be said where.

    Raises BadRow where the text is otherwise wrong, but ends where it seems to; else MalformedRow.
    """
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    problem = f"isn't valid JSON ({str(error).removeprefix('JSON is malformed: ').lower()})"
    try:
        row = json.loads(text, strict=False, parse_constant=_no_constant)
    except json.JSONDecodeError:
        raise MalformedRow(problem) from error
    except RecursionError:
        raise BadRow("is nested too deeply") from error
    except ValueError:
        raise BadRow("holds a number of too many digits") from error
    if _SURROGATE.search(text) and isinstance(row, dict):
        return row
    raise BadRow(problem) from error


def _no_constant(name: str) -> None:
    raise BadRow(f"isn't valid JSON: it has no {name}, use null")
