"""Models of the library sentence-transformers: the kind `st`, by name or by path, `st:all-MiniLM-L6-v2`.

The library is imported and the weights are loaded with the first text. What differs between queries and documents,
a prompt or a route through the model, is the library's `encode_query` and `encode_document`; a prefix that is given
in the options takes the place of the model's own prompt.
"""

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec

from embedq_core.errors import ModelMisconfigured
from embedq_plugins.hookspecs import RegisterKind, hookimpl
from embedq_plugins.kinds import ModelKind, read_options
from embedq_plugins.libraries import load_failure, require_library
from embedq_plugins.model import EmbeddingModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LIBRARY: Final = "sentence_transformers"
INSTALL: Final = "pip install 'embedq[sentence-transformers]'"

# The library sorts the texts of a call by length before it pads them: the more it is given, the less it pads.
BATCH_SIZE: Final = 256
# What the library passes through a model at a time, unless told otherwise.
FORWARD_BATCH_SIZE: Final = 32

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

_log = logging.getLogger("embedq.models")


class SentenceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set for a model of sentence-transformers; what is None is the library's, or the model's, own."""

    model: str
    """Name on the model hub, or path of a folder; `~` is the home."""

    revision: str | None = None
    """Branch, tag or commit on the hub."""

    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps` …"""

    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What the weights are computed in. Vectors are float32 all the same."""

    batch_size: _Count = BATCH_SIZE
    """Texts in a call. They are sorted by length."""

    forward_batch_size: _Count = FORWARD_BATCH_SIZE
    """Texts that go through the model at once. Halved, and kept so, where memory doesn't suffice."""

    document_prefix: str | None = None
    query_prefix: str | None = None

    document_prompt: str | None = None
    query_prompt: str | None = None
    """Names of prompts that the model brings, where its `document` and `query` are not the ones to use."""

    dimensions: _Count | None = None
    """Keep so many dimensions, for models that are trained to be cut."""

    max_seq_length: _Count | None = None
    """Tokens of a text that are read."""

    normalize: bool = False
    """Scale vectors to length 1."""

    trust_remote_code: bool = False
    """Run code that the model brings."""

    def __post_init__(self) -> None:
        for form in ("document", "query"):
            if getattr(self, f"{form}_prefix") is not None and getattr(self, f"{form}_prompt") is not None:
                # Of a ValueError msgspec makes a ValidationError, as of any other fault.
                raise ValueError(f"set {form}_prefix or {form}_prompt, not both")


class SentenceModel(EmbeddingModel):
    """A model of sentence-transformers. Texts beyond what it can read are cut, which is said once."""

    library = LIBRARY
    install = INSTALL

    def __init__(self, model_id: str, options: SentenceOptions) -> None:
        self.model_id = model_id
        self.options = options
        self.batch_size = options.batch_size
        self.dimension = options.dimensions
        self.document_prefix = options.document_prefix or ""
        self.query_prefix = options.query_prefix or ""
        self._forward_batch_size = options.forward_batch_size
        self._lock = Lock()
        self._loaded: Any = None  # the library has types, but need not be there
        self._said_cut = False

    @property
    def configuration(self) -> Mapping[str, str | int | float | bool]:
        """Prefixes and prompts, which weights, and how much of a text is read and of a vector kept.

        Not the type of the weights or the device: what they change is rounding.
        """
        names = ("model", "revision", "document_prompt", "query_prompt", "dimensions", "max_seq_length")
        own = {name: getattr(self.options, name) for name in names}
        return {**super().configuration, **{name: value for name, value in own.items() if value is not None}}

    def embed_batch(self, items: Iterable[str | bytes]) -> "npt.NDArray[np.float32]":
        """The vectors of documents: float32, shape (items, dimension).

        Raises ModelMisconfigured where the model can't be loaded: MissingLibrary, ModelUnavailable.
        """
        return self._encoded("encode_document", items, self.options.document_prefix, self.options.document_prompt)

    def embed_query_batch(self, items: Iterable[str | bytes]) -> "npt.NDArray[np.float32]":
        """The vectors of queries. As `embed_batch`."""
        queries = [self.query_prefix + item for item in items if isinstance(item, str)]
        return self._encoded("encode_query", queries, self.options.query_prefix, self.options.query_prompt)

    def _encoded(
        self, method: str, items: Iterable[str | bytes], prefix: str | None, prompt_name: str | None
    ) -> "npt.NDArray[np.float32]":
        import numpy as np

        loaded = self._load()
        texts = [item for item in items if isinstance(item, str)]
        self._say_cut(loaded, texts)
        while True:
            size = self._forward_batch_size
            try:
                vectors = getattr(loaded, method)(
                    texts,
                    # A prefix stands before the texts already, in the place of the model's prompt.
                    prompt=None if prefix is None else "",
                    prompt_name=prompt_name,
                    batch_size=size,
                    normalize_embeddings=self.options.normalize,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
            except RuntimeError as error:
                if type(error).__name__ != "OutOfMemoryError" or size == 1:
                    raise
                self._forward_batch_size = size // 2
                _log.warning(
                    "%s: %d texts at once don't fit in the memory of the device; trying %d",
                    self.model_id,
                    size,
                    size // 2,
                )
                continue
            return np.asarray(vectors, dtype=np.float32)

    def _load(self) -> Any:  # noqa: ANN401 - see _loaded
        with self._lock:
            if self._loaded is None:
                require_library(self)
                try:
                    self._loaded = _load(self.options)
                except Exception as error:
                    raise load_failure(self, self.options.model, error) from error
            return self._loaded

    def _say_cut(self, loaded: Any, texts: list[str]) -> None:  # noqa: ANN401 - see _loaded
        """Say once that texts are cut. Of each call the longest text is looked at: that costs next to nothing."""
        limit = loaded.max_seq_length
        longest = max(texts, key=len, default="")
        # A token is a character at least. Models without attention have tokenizers of their own, and no limit.
        if self._said_cut or not limit or len(longest) < limit or not callable(loaded.tokenizer):
            return
        if len(loaded.tokenizer(longest, truncation=False, verbose=False)["input_ids"]) > limit:
            self._said_cut = True
            _log.warning(
                "%s reads the first %d tokens of a text; what longer texts have beyond is not embedded",
                self.model_id,
                limit,
            )


class SentenceKind(ModelKind):
    """Models of sentence-transformers."""

    name = "st"
    library = LIBRARY
    install = INSTALL

    def make(self, model_id: str, options: Mapping[str, object]) -> SentenceModel:
        """The model, without a look at the library or the weights."""
        return SentenceModel(model_id, read_options(options, SentenceOptions))


@hookimpl
def register_model_kinds(register: RegisterKind) -> None:
    """Register the kind."""
    register(SentenceKind())


def _load(options: SentenceOptions) -> Any:  # noqa: ANN401 - the library need not be there when types are checked
    library = importlib.import_module(LIBRARY)
    path = Path(options.model).expanduser()
    with _without_progress_bars():
        loaded = library.SentenceTransformer(
            str(path) if path.is_dir() else options.model,
            device=options.device,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
            truncate_dim=options.dimensions,
        )
    if options.dtype is not None:
        loaded = loaded.to(dtype=getattr(importlib.import_module("torch"), options.dtype))
    if options.max_seq_length is not None:
        loaded.max_seq_length = options.max_seq_length
    for name in (options.document_prompt, options.query_prompt):
        if name is not None and name not in loaded.prompts:
            known = ", ".join(sorted(loaded.prompts)) or "none"
            raise ModelMisconfigured(f"{options.model} has no prompt {name!r}; it has {known}")
    return loaded


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """The command line has a progress display of its own, and a worker writes to a log."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not transformers.utils.logging.is_progress_bar_enabled():
        yield
        return
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.enable_progress_bar()
