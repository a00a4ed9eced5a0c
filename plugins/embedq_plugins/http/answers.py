"""What an endpoint answered: vectors, or an error in our words. No key is in any of them."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from embedq_core.errors import (
    ContentRefused,
    EmbedqError,
    ModelMisconfigured,
    ModelUnavailable,
    RateLimited,
    WrongVectorCount,
)
from embedq_core.limits import retry_after
from embedq_core.text import excerpt
from embedq_core.vectors import STORED_DTYPE

# A request that the server may take for one with a mistake of ours, or of one text.
REFUSALS: Final = frozenset({400, 413, 422})

_MESSAGE_CHARACTERS: Final = 300
_KEY_REFUSED: Final = (401, 407)
_PASSING: Final = (408, 409, 425)
_NO_QUOTA: Final = re.compile("insufficient_quota|exceeded your current quota")
_UNKNOWN: Final = re.compile("not found|not_found|not exist|unknown model")


class Reply(NamedTuple):
    """A whole reply, whatever it is. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Doubtful(ContentRefused):
    """A reply that may be about this content or about everything: another text tells which."""


class Answer(NamedTuple):
    """The vectors, in the order of the texts, and how many tokens these had, where it says so."""

    rows: list[Any]
    tokens: int | None


class _Row(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Body(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None


_decoder: Final = msgspec.json.Decoder(_Body)


def read_answer(reply: Reply, count: int) -> Answer:
    """The vectors of `count` texts in a reply of status 200. Raises Doubtful, and WrongVectorCount."""
    try:
        body = _decoder.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Python's decoder also reads NaN; msgspec then takes what it gives as it comes.
        body = _leniently(reply.body)
    if len(body.data) != count:
        raise WrongVectorCount(f"the endpoint returned {len(body.data)} vectors for {count} texts")
    places = [number if row.index is None else row.index for number, row in enumerate(body.data)]
    if sorted(places) != list(range(count)):
        raise WrongVectorCount(f"the endpoint returned vectors that are not numbered from 0 to {count - 1}")
    rows: list[Any] = [None] * count
    for place, row in zip(places, body.data, strict=True):
        rows[place] = _vector(row.embedding)
    usage = body.usage or _Usage()
    return Answer(rows, usage.prompt_tokens if usage.prompt_tokens is not None else usage.total_tokens)


def _leniently(content: bytes) -> _Body:
    try:
        found = json.loads(content)
        rows = [_Row(row["embedding"], row.get("index")) for row in found["data"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        start = excerpt(content[:200].decode(errors="replace"), 80)
        raise Doubtful(f"the endpoint answered something that is no list of vectors: {start!r}") from None
    if not all(row.index is None or isinstance(row.index, int) for row in rows):
        raise Doubtful("the endpoint answered vectors with an index that is no number")
    return _Body(rows)


def _vector(embedding: str | list[float]) -> Any:  # noqa: ANN401 - a row is checked by whoever takes it
    if not isinstance(embedding, str):
        return embedding
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), STORED_DTYPE)
    except (binascii.Error, ValueError):
        raise Doubtful("the endpoint answered a vector that is no base64 of 32-bit floats") from None


def error_of(reply: Reply, where: str, model: str, key: str, secrets: Iterable[str]) -> EmbedqError:
    """What a reply of another status than 200 means: `key` says where the key was read, `secrets` are not repeated."""
    status, said = reply.status, _said(reply.body, secrets)
    text = f"{where} answers HTTP {status}{': ' + said if said else ''}"
    mend = _to_mend(status, said.lower(), model, key)
    if mend is not None:
        # The reply to a wrong key may repeat a part of it.
        return ModelMisconfigured(
            f"{where} answers HTTP {status}: {mend}" if status in _KEY_REFUSED else f"{text}: {mend}"
        )
    if status == 403:
        return Doubtful(f"{where} forbids it (HTTP 403): check {key}, and what it may do")
    wait = retry_after(reply.headers.get("retry-after"))
    if status == 429:
        return RateLimited(text, wait)
    return ModelUnavailable(text, wait) if status in _PASSING or status >= 500 else ContentRefused(text)


def _to_mend(status: int, said: str, model: str, key: str) -> str | None:
    """What somebody has to do before any request can succeed; None where it may be otherwise."""
    account = status == 402 or (status == 429 and _NO_QUOTA.search(said))
    unknown = status in (400, 422) and "model" in said and _UNKNOWN.search(said)
    if status in _KEY_REFUSED:
        return f"it refuses {key}: check it"
    if account:
        return "see to the account"
    if status == 404 or unknown:
        return f"check the address, and the name of the model, {model!r}"
    return "that is no answer: check the address" if status < 400 else None


def _said(body: bytes, secrets: Iterable[str]) -> str:
    """What the body of an error says, on one line."""
    text = body[:10_000].decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    for name in ("error", "message", "detail"):
        inner = found.get(name) if isinstance(found, dict) else None
        if isinstance(inner, dict):
            code = inner.get("code")
            text = f"{inner.get('message', '')}{f' ({code})' if isinstance(code, str) else ''}"
            break
        if inner is not None:
            text = str(inner)
            break
    for secret in secrets:
        text = text.replace(secret, "…")
    return excerpt(text, _MESSAGE_CHARACTERS)
