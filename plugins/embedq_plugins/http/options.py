"""What can be said of a model behind HTTP in its table of the settings file."""

from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import msgspec

from embedq_core.limits import Limits

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]

# Of English prose; other languages, and code, have fewer.
CHARACTERS_PER_TOKEN: Final = 4.0

_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})
_KNOWN_DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


class HttpOptions(msgspec.Struct, kw_only=True, frozen=True):
    """Options of `kind = "http"`."""

    model: str
    """The model's name at the endpoint."""

    base_url: str | list[str]
    """The address, such as `http://localhost:8080/v1`; several share the load."""

    key_env: str | None = None
    """The environment variable that holds the key."""

    key_file: str | None = None
    """The file that holds the key; it is read for each request, so that a key can be changed."""

    key_header: str = "Authorization"
    """The header that carries the key: `Bearer KEY` in Authorization, the bare key in any other."""

    dimensions: Count | None = None
    """How long the vectors shall be, for models that offer several lengths."""

    encoding: Literal["auto", "base64", "float"] = "auto"
    """How vectors travel: base64 is a third of the size. `auto` asks for base64, and no more where that is refused."""

    batch_size: Count = 32
    """Texts in a request, at most; text-embeddings-inference takes no more unless told to."""

    batch_tokens: Count | None = None
    """Tokens in a request, at most, as they are estimated; a single text may have more."""

    characters_per_token: Positive = CHARACTERS_PER_TOKEN
    """For the estimate of tokens."""

    max_input_tokens: Count | None = None
    """Tokens that the model takes in one text. Longer ones are sent alone, so that no other is refused with them."""

    truncate: bool = False
    """Cut texts at `max_input_tokens`, as they are estimated."""

    concurrency: Count = 4
    """Requests that may be going on at once, in each worker."""

    requests_per_minute: Positive | None = None
    """Requests in a minute, of all workers together."""

    tokens_per_minute: Positive | None = None
    """Tokens in a minute, of all workers together."""

    timeout_seconds: Positive = 60.0
    """How long an answer may take, from the request to its last byte."""

    connect_seconds: Positive = 10.0
    """How long a connection may take."""

    ca_file: str | None = None
    """PEM file of an authority to trust, beside the usual ones."""

    headers: dict[str, str] = {}
    """More headers; none that carries a key."""

    document_prefix: str = ""
    """What stands before each text that is stored, when it is embedded."""

    query_prefix: str = ""
    """What stands before each text that is searched for."""

    document_body: dict[str, Any] = {}
    """More fields of the request for texts that are stored: `{input_type = "passage"}`, say."""

    query_body: dict[str, Any] = {}
    """More fields of the request for texts that are searched for."""

    def __post_init__(self) -> None:
        """Refuse what can't be meant. Raises ValueError, which holds no value that may be secret."""
        if not self.addresses:
            raise ValueError("base_url must not be empty")
        for address in self.addresses:
            _check_address(address)
        if self.truncate and self.max_input_tokens is None:
            raise ValueError("truncate needs max_input_tokens: how long a text may be")
        for header in self.headers:
            if header.lower() in _SECRET_HEADERS or header.lower() == self.key_header.lower():
                raise ValueError(f"headers must not hold {header}, which carries a key: use key_env or key_file")
            if not (header + self.headers[header]).isprintable() or not (header + self.headers[header]).isascii():
                raise ValueError("headers must be printable ASCII")

    @property
    def addresses(self) -> list[str]:
        """Where requests go: one URL for each endpoint, in the order given."""
        given = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        return [_embeddings(url) for url in dict.fromkeys(given)]

    @property
    def limits(self) -> Limits:
        """How often the model may be called."""
        return Limits(self.requests_per_minute, self.tokens_per_minute)

    @property
    def known_dimension(self) -> int | None:
        """How long the vectors are, where that is known beforehand."""
        return self.dimensions or _KNOWN_DIMENSIONS.get(self.model)

    @property
    def longest_text(self) -> int | None:
        """How many characters of a text are embedded; None for all."""
        if not self.truncate or self.max_input_tokens is None:
            return None
        return max(int(self.max_input_tokens * self.characters_per_token), 1)

    @property
    def recorded(self) -> dict[str, str | int | float | bool]:
        """What, beside prefixes, decides which vectors a text gets."""
        found: dict[str, str | int | float | bool | None] = {
            "model": self.model,
            "dimensions": self.dimensions,
            "characters": self.longest_text,
            "document_body": _text(self.document_body),
            "query_body": _text(self.query_body),
        }
        return {name: value for name, value in found.items() if value is not None}


class OpenAIOptions(HttpOptions, kw_only=True, frozen=True):
    """Options of `kind = "openai"`: the same, with OpenAI's address, variable and bounds."""

    base_url: str | list[str] = "https://api.openai.com/v1"
    key_env: str | None = "OPENAI_API_KEY"
    batch_size: Count = 256
    # 300,000 are allowed; an estimate may be wrong by a factor.
    batch_tokens: Count | None = 100_000
    max_input_tokens: Count | None = 8191


def _text(fields: dict[str, Any]) -> str | None:
    """Fields of a request as text; None where there are none."""
    return msgspec.json.encode(fields, order="sorted").decode() if fields else None


def shown_address(url: str) -> str:
    """`url` without its query, which may hold a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix("/embeddings"), "", ""))


def _embeddings(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith("/embeddings") else f"{path}/embeddings", fragment=""))


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not hold a user name or password: use key_env or key_file")
    try:
        # Reading it is the check of the port.
        complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("base_url must be an address such as http://localhost:8080/v1")
