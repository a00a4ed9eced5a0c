"""A model behind HTTP: texts into requests, replies into vectors, errors into what they mean for a worker."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from embedq_core.errors import ContentRefused, ModelMisconfigured, ModelUnavailable, RateLimited, WrongVectorCount
from embedq_core.items import prefixed
from embedq_core.limits import Limiter
from embedq_plugins.http import INSTALL, LIBRARY
from embedq_plugins.http.answers import REFUSALS, Answer, Doubtful, Reply, error_of, read_answer
from embedq_plugins.http.endpoints import Endpoints
from embedq_plugins.http.options import HttpOptions, shown_address
from embedq_plugins.http.requests import planned
from embedq_plugins.limiting import LocalLimiter
from embedq_plugins.model import EmbeddingModel

if TYPE_CHECKING:
    from embedq_plugins.http.client import Client

# How long to hold all requests where a server asks for patience and doesn't say for how long.
HOLD_SECONDS: Final = 1.0

_SECRET_CHARACTERS: Final = 8

# A text that no model refuses.
_PLAIN_TEXT: Final = "embedq"


class HttpModel(EmbeddingModel):
    """A model that `options` describe. Threads share it; nothing is connected before the first text.

    What it raises: RateLimited and ModelUnavailable where the same call may succeed later, ModelMisconfigured where
    somebody has to mend something first, ContentRefused and WrongVectorCount where a text may be at fault. A text that
    stands alone is not believed to be at fault before the endpoint has taken another.
    """

    library: str | None = LIBRARY
    install: str | None = INSTALL

    def __init__(self, model_id: str, options: HttpOptions) -> None:
        self.model_id = model_id
        self.batch_size = options.batch_size
        self.batch_tokens = options.batch_tokens
        if options.max_input_tokens is not None and self.batch_tokens is None:
            # No bound, but one that longer texts reach: see count_tokens.
            self.batch_tokens = options.max_input_tokens * options.batch_size
        self.concurrency = options.concurrency
        self.dimension = options.known_dimension
        self.document_prefix = options.document_prefix
        self.query_prefix = options.query_prefix
        self.limits = options.limits
        self.limiter: Limiter = LocalLimiter(options.limits)
        self._options = options
        self._endpoints = Endpoints(options.addresses)
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._base64 = options.encoding != "float"
        # Whether base64 may yet turn out to be what a server refuses.
        self._base64_doubtful = options.encoding == "auto"
        self._width = options.dimensions

    @property
    def configuration(self) -> Mapping[str, str | int | float | bool]:
        """What decides which vectors a text gets: the name at the endpoint, lengths, added fields, prefixes."""
        return {**super().configuration, **self._options.recorded}

    @property
    def estimates_tokens(self) -> bool:
        """Yes: the tokenizer is at the endpoint."""
        return True

    def count_tokens(self, item: str | bytes) -> int:
        """The estimate of tokens. A text that may be too long counts as a whole batch, so that it is sent alone."""
        tokens = self._estimated(item)
        most = self._options.max_input_tokens
        too_long = most is not None and tokens > most and not self._options.truncate
        return max(tokens, self.batch_tokens or 0) if too_long else tokens

    def embed_batch(self, items: Iterable[str | bytes]) -> list[Any]:
        """The vectors of texts to store, in one request unless there are too many tokens for it."""
        return self._embedded(list(items), self._options.document_body)

    def embed_query_batch(self, items: Iterable[str | bytes]) -> list[Any]:
        """The vectors of texts to search for."""
        return self._embedded(prefixed(self.query_prefix, items), self._options.query_body)

    def check_setup(self) -> None:
        """Raise ModelMisconfigured where the key is missing."""
        self._key()

    def close(self) -> None:
        """Close the connections; the next request makes new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _estimated(self, item: str | bytes) -> int:
        longest = self._options.longest_text
        length = len(item) if longest is None else min(len(item), longest)
        return int(length / self._options.characters_per_token) + 1

    def _embedded(self, items: Sequence[str | bytes], fields: Mapping[str, Any]) -> list[Any]:
        longest = self._options.longest_text
        texts = [item[:longest] for item in items if isinstance(item, str)]
        rows: list[Any] = []
        for start, stop in planned(list(map(self.count_tokens, texts)), self.batch_size, self.batch_tokens):
            rows += self._ask(texts[start:stop], fields)
        return rows

    def _ask(self, texts: Sequence[str], fields: Mapping[str, Any]) -> list[Any]:
        """The vectors of one request, from whichever endpoint gives them."""
        tried: set[str] = set()
        failures: list[ModelUnavailable] = []
        while True:
            with self._endpoints.chosen(tried) as url:
                if url is None:
                    break
                tried.add(url)
                try:
                    rows = self._ask_at(url, texts, fields)
                except ModelUnavailable as failure:
                    failures.append(failure)
                    self._endpoints.failed(url, failure.seconds)
                except (ContentRefused, WrongVectorCount):
                    self._endpoints.succeeded(url)
                    raise
                else:
                    self._endpoints.succeeded(url)
                    return rows
        worst = _gravest(failures)
        if isinstance(worst, RateLimited):
            self.limiter.hold(HOLD_SECONDS if worst.seconds is None else worst.seconds)
        raise worst

    def _ask_at(self, url: str, texts: Sequence[str], fields: Mapping[str, Any]) -> list[Any]:
        """The vectors of one request from one endpoint."""
        try:
            answer = self._send(url, texts, fields)
        except (ContentRefused, WrongVectorCount) as refusal:
            if len(texts) > 1 and not isinstance(refusal, Doubtful):
                raise
            self._prove(url, fields, refusal)
            if len(texts) > 1:
                raise
            raise type(refusal)(f"{refusal}{self._too_long(texts[0])}") from None
        return answer.rows

    def _prove(self, url: str, fields: Mapping[str, Any], refusal: Exception) -> None:
        """Have a plain text embedded. Where that is refused as well, it is no text's fault: ModelMisconfigured."""
        try:
            self._send(url, [_PLAIN_TEXT], fields)
        except (ContentRefused, WrongVectorCount):
            raise ModelMisconfigured(f"{refusal}; so it is with any text") from None

    def _too_long(self, text: str) -> str:
        tokens, most = self._estimated(text), self._options.max_input_tokens
        if most is None or tokens <= most:
            return ""
        return f" (about {tokens:,} tokens; the model takes {most:,}: set truncate = true to cut such texts)"

    def _send(self, url: str, texts: Sequence[str], fields: Mapping[str, Any]) -> Answer:
        """One request; a second one where the server may not know base64."""
        with_base64 = self._base64
        reply = self._post(url, texts, fields, with_base64=with_base64)
        if reply.status in REFUSALS and with_base64 and self._base64_doubtful:
            again = self._post(url, texts, fields, with_base64=False)
            if again.status not in REFUSALS:
                self._base64 = again.status != 200
                reply = again
        if reply.status != 200:
            raise error_of(reply, shown_address(url), self._options.model, self._key_name, self._secrets())
        answer = read_answer(reply, len(texts))
        self._base64_doubtful = self._base64_doubtful and not with_base64
        self._check_width(url, answer.rows)
        if answer.tokens is not None:
            self.limiter.correct(sum(map(self._estimated, texts)), answer.tokens)
        return answer

    def _post(self, url: str, texts: Sequence[str], fields: Mapping[str, Any], *, with_base64: bool) -> Reply:
        body: dict[str, Any] = {"model": self._options.model, "input": texts}
        if self._options.dimensions is not None:
            body["dimensions"] = self._options.dimensions
        if with_base64:
            body["encoding_format"] = "base64"
        elif self._options.encoding == "float":
            body["encoding_format"] = "float"
        headers = {"Content-Type": "application/json", **self._options.headers, **self._key_headers()}
        client = self._connected()
        try:
            content = msgspec.json.encode({**fields, **body})
        except UnicodeEncodeError:
            raise ContentRefused("a text holds a lone surrogate, which has no encoding in UTF-8") from None
        self.limiter.wait(sum(map(self._estimated, texts)))
        return client.post(url, shown_address(url), content, headers)

    def _connected(self) -> "Client":
        with self._lock:
            if self._client is None:
                try:
                    from embedq_plugins.http.client import Client
                except ImportError as error:
                    raise ModelMisconfigured(f"{self.model_id} needs a library ({error}): {INSTALL}") from None
                self._client = Client(self._options)
            return self._client

    def _check_width(self, url: str, rows: Sequence[Any]) -> None:
        """Refuse vectors that are all of another length than was asked for, or than they were before."""
        widths = {len(row) for row in rows if hasattr(row, "__len__")}
        if len(widths) != 1:
            return
        (width,) = widths
        if not width:
            raise Doubtful(f"{shown_address(url)} returns vectors without a dimension")
        with self._lock:
            expected = self._width
            if expected is None:
                self._width = width
        if expected is not None and width != expected:
            was = "asked for" if self._options.dimensions is not None else "before"
            raise ModelMisconfigured(
                f"{shown_address(url)} returns vectors of {width} dimensions, not of {expected} as {was}: "
                "is it another model? Mend it, or end this process and use another collection"
            )

    @property
    def _key_name(self) -> str:
        """Where the key is, in words."""
        if self._options.key_file is not None:
            return f"the key in {self._options.key_file}"
        return f"the key in {self._options.key_env}" if self._options.key_env else "requests without a key"

    def _key_headers(self) -> dict[str, str]:
        key = self._key()
        if key is None:
            return {}
        header = self._options.key_header
        return {header: f"Bearer {key}" if header.lower() == "authorization" else key}

    def _key(self) -> str | None:
        """The key, read anew each time. Raises ModelMisconfigured."""
        if self._options.key_file is not None:
            try:
                key = Path(self._options.key_file).expanduser().read_text(encoding="ascii").strip()
            except OSError as error:
                raise ModelMisconfigured(f"{self._key_name} can't be read: {error.strerror}") from None
            except UnicodeDecodeError:
                key = ""
        elif self._options.key_env is not None:
            key = os.environ.get(self._options.key_env, "").strip()
            if not key:
                raise ModelMisconfigured(f"the key is missing: set the environment variable {self._options.key_env}")
        else:
            return None
        # What the header can't carry would come back in an error's text.
        if not key or not key.isascii() or not key.isprintable():
            raise ModelMisconfigured(f"{self._key_name} is no key: it must be one line of ASCII")
        return key

    def _secrets(self) -> list[str]:
        key = self._key()
        # What is shorter is no secret, and may be a part of any word.
        values = [value for value in self._options.headers.values() if len(value) >= _SECRET_CHARACTERS]
        return values if key is None else [key, *values]


def _gravest(failures: Sequence[ModelUnavailable]) -> ModelUnavailable:
    """Of what went wrong at each endpoint, what says how soon to come again."""
    limited = [failure for failure in failures if isinstance(failure, RateLimited)]
    if limited:
        return min(limited, key=lambda failure: HOLD_SECONDS if failure.seconds is None else failure.seconds)
    passing = [failure for failure in failures if not isinstance(failure, ModelMisconfigured)]
    return (passing or failures)[0]
