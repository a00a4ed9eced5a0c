"""What embedq expects of an embedding model, as a suite that any plugin can run on its own.

With pytest, or unittest, it is a class:

    class TestMine(ModelConformance):
        model = MyModel()

Without either, `check_model(MyModel())` gives a sentence for each promise that is broken, and none for a good model.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from embedq_core.model import embed_all, embed_queries
from embedq_plugins.model import EmbeddingModel
from embedq_plugins.validation import model_fault

if TYPE_CHECKING:
    from embedq_core.vectors import Matrix

TEXTS: Final = (
    "how to sort a list",
    "a",
    "Bread is baked from flour, water, salt and patience. " * 8,
    "Zażółć gęślą jaźń",
    "日本語の文章",
    "👩‍👩‍👧 emoji, and e\u0301 in two parts",
    "مرحبا بالعالم",
    "one line\nand another,\tand a tab",
    "x = [n ** 2 for n in range(10)]",
)
"""Texts of several lengths and scripts, all different."""

LONG_TEXT: Final = "the quick brown fox jumps over the lazy dog. " * 2_000
"""More than most models read: 90,000 characters."""

TOLERANCE: Final = 1e-3
"""How far two vectors of one text may be apart, as a share of their length: batches are padded and summed apart."""

# Nobody needs to see a batch of thousands.
_MOST: Final = 256
_THREADS: Final = 4
_SECONDS: Final = 120

# Libraries that take seconds to import, or that only few have.
_HEAVY: Final = ("torch", "tensorflow", "jax", "transformers", "sentence_transformers", "onnxruntime", "openai", "llm")

_IMPORTS: Final = """
import importlib, importlib.util, json, sys
name, file, names, sys.path[:] = json.loads(sys.argv[1])
try:
    found = name != "__main__" and importlib.util.find_spec(name)
except ImportError:
    found = None
if found or not file:
    module = importlib.import_module(name)
else:
    spec = importlib.util.spec_from_file_location("model_under_test", file)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
package = sys.modules.get(name.partition(".")[0], module)
for plugin in (module, package)[: 1 + (package is not module)]:
    for hook in ("register_embedding_models", "register_model_kinds"):
        getattr(plugin, hook, lambda register: None)(register=lambda *given, **named: None)
print(json.dumps([name for name in names if name in sys.modules]))
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and what it is tried with."""

    model: EmbeddingModel
    texts: Sequence[str] = TEXTS
    binary: Sequence[bytes] = ()
    tolerance: float = TOLERANCE

    @property
    def samples(self) -> list[str | bytes]:
        """All that the model takes, text and bytes in turn."""
        texts: list[str | bytes] = list(self.texts) if self.model.supports_text else []
        images: list[str | bytes] = list(self.binary) if self.model.supports_binary else []
        pairs = [item for pair in zip(images, texts, strict=False) for item in pair]
        return [*pairs, *images[len(texts) :], *texts[len(images) :]]

    def embed(self, items: Sequence[str | bytes]) -> "Matrix":
        """The vectors of `items` in one call: float32, shape (items, dimension)."""
        return embed_all(self.model, items).matrix


Promise: TypeAlias = Callable[[Subject], str | None]
"""Says how it is broken, or nothing. What it raises breaks it, too."""


def attributes(subject: Subject) -> str | None:
    """model_id, batch_size and the like have values that embedq can use."""
    model = subject.model
    fault = model_fault(model)
    if fault:
        return fault
    if model.supports_binary and not subject.binary:
        return "supports_binary is true, but there are no bytes to try: give some as `binary`"
    if model.supports_text and len(set(subject.texts)) < 2:
        return "at least two different texts are needed: give them as `texts`"
    return None


def configuration(subject: Subject) -> str | None:
    """`configuration` can be written down, and is the same when it is asked for again."""
    found = dict(subject.model.configuration)
    if json.loads(json.dumps(found)) != found or dict(subject.model.configuration) != found:
        return f"it is {found!r}"
    return None


def lazy_import(subject: Subject) -> str | None:
    """Importing the plugin and registering its models imports no library that takes seconds: `embed_batch` does."""
    kind = type(subject.model)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    names = [name for name in (subject.model.library, *_HEAVY) if name]
    asked = json.dumps([kind.__module__, file, names, [str(Path(folder).absolute()) for folder in sys.path]])
    done = subprocess.run(  # noqa: S603 - this interpreter, and text of ours
        [sys.executable, "-c", _IMPORTS, asked], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        return f"loading {kind.__module__} failed: {done.stderr.strip().splitlines()[-1]}"
    imported = json.loads(done.stdout.splitlines()[-1])
    return f"loading {kind.__module__} imports {', '.join(imported)}" if imported else None


def vectors(subject: Subject) -> str | None:
    """Each item gets one vector of finite numbers, all of one length, which is `dimension` where that is set."""
    width = subject.embed(subject.samples).shape[1]
    if subject.model.dimension not in (None, width):
        return f"dimension is {subject.model.dimension}, and the vectors have {width}"
    return None


def difference(subject: Subject) -> str | None:
    """Different items get different vectors."""
    matrix = subject.embed(subject.samples)
    return "all items got one vector" if len(matrix) > 1 and not (matrix != matrix[0]).any() else None


def order(subject: Subject) -> str | None:
    """The vectors come in the order of the items."""
    return _apart(subject, subject.embed(subject.samples), subject.embed(subject.samples[::-1])[::-1])


def repetition(subject: Subject) -> str | None:
    """The same item gets the same vector again, within a batch as well."""
    samples = subject.samples
    once = subject.embed(samples)
    twice = subject.embed([*samples, *samples])
    return _apart(subject, once, twice[: len(samples)]) or _apart(subject, once, twice[len(samples) :])


def company(subject: Subject) -> str | None:
    """An item's vector does not depend on the others of its batch, long or short."""
    import numpy as np

    samples = subject.samples
    return _apart(subject, subject.embed(samples), np.concatenate([subject.embed([item]) for item in samples]))


def full_batches(subject: Subject) -> str | None:
    """`embed_batch` takes `batch_size` items at once (256 are tried at most), and `embed_multi` any number."""
    import numpy as np

    samples, model = subject.samples, subject.model
    size = min(model.batch_size or _MOST, _MOST)
    many = (samples * (size // len(samples) + 1))[:size]
    whole = subject.embed(many)
    parts = np.asarray(list(model.embed_multi(iter([*many, samples[0]]))), dtype=np.float32)
    return _apart(subject, np.concatenate((whole, subject.embed(samples[:1]))), parts)


def kinds_of_content(subject: Subject) -> str | None:
    """What `supports_text` and `supports_binary` exclude, `unsupported` refuses, and nothing else."""
    model = subject.model
    for kind, supported, items in (
        ("text", model.supports_text, subject.texts),
        ("bytes", model.supports_binary, subject.binary or (b"x",)),
    ):
        for item in items:
            if (model.unsupported(item) is None) != supported:
                return f"{kind}: support is {supported}, and unsupported() says {model.unsupported(item)!r}"
    return None


def odd_contents(subject: Subject) -> str | None:
    """An empty item, a very long one and one with odd characters get a vector, or are refused: no row is left out."""
    from embedq_core.errors import WrongVectorCount

    odd: list[str | bytes] = ["", " \n", LONG_TEXT, "a\0b\x1b[31m\u202e"] if subject.model.supports_text else []
    odd += [b"", b"\0\xff" * 10] if subject.model.supports_binary else []
    for item in odd:
        try:
            subject.embed([item])
        except WrongVectorCount as error:
            return f"{item[:20]!r}: {error}"
        except Exception:  # noqa: S112 - refusing is allowed
            continue
    return None


def threads(subject: Subject) -> str | None:
    """`embed_batch` works in any thread, and in `concurrency` of them at once."""
    samples = subject.samples
    alone = subject.embed(samples)
    with ThreadPoolExecutor(min(subject.model.concurrency, _THREADS)) as pool:
        for matrix in pool.map(subject.embed, [samples] * _THREADS):
            apart = _apart(subject, alone, matrix)
            if apart:
                return apart
    return None


def queries(subject: Subject) -> str | None:
    """What is searched for gets vectors of the same length as what is stored, one each."""
    samples = subject.samples
    stored, asked = subject.embed(samples), embed_queries(subject.model, samples)
    return None if stored.shape == asked.shape else f"{asked.shape[1]} numbers, and {stored.shape[1]} when stored"


PROMISES: Final[tuple[Promise, ...]] = (
    attributes,
    configuration,
    lazy_import,
    vectors,
    difference,
    order,
    repetition,
    company,
    full_batches,
    kinds_of_content,
    odd_contents,
    threads,
    queries,
)
"""All that is promised; the docstring of each is the promise."""


def check_model(
    model: EmbeddingModel,
    *,
    texts: Sequence[str] = TEXTS,
    binary: Sequence[bytes] = (),
    tolerance: float = TOLERANCE,
) -> list[str]:
    """The promises that `model` breaks, each in a sentence.

    `texts` are for a model that knows certain words only. A model that takes bytes needs some: two images, say.
    `tolerance` is how far two vectors of one item may be apart, as a share of their length.
    """
    return list(_broken(Subject(model, texts, binary, tolerance)))


class ModelConformance:
    """A test for each promise: extend it, and set `model`. `texts`, `binary`, `tolerance` are as with `check_model`."""

    model: EmbeddingModel
    texts: ClassVar[Sequence[str]] = TEXTS
    binary: ClassVar[Sequence[bytes]] = ()
    tolerance: ClassVar[float] = TOLERANCE


def _as_test(promise: Promise) -> Callable[[ModelConformance], None]:
    def test(self: ModelConformance) -> None:
        broken = kept(promise, Subject(self.model, self.texts, self.binary, self.tolerance))
        if broken:
            raise AssertionError(broken)

    test.__doc__ = promise.__doc__
    return test


for _promise in PROMISES:
    setattr(ModelConformance, f"test_{_promise.__name__}", _as_test(_promise))


def _broken(subject: Subject) -> Iterator[str]:
    for promise in PROMISES:
        broken = kept(promise, subject)
        if broken:
            yield broken
            if promise is attributes:
                # The others would be tried with nothing.
                return


def kept(promise: Promise, subject: Subject) -> str | None:
    """Nothing, or the promise and how it is broken."""
    try:
        broken = promise(subject)
    except Exception as error:
        broken = f"{type(error).__name__}: {error}"
    return f"{promise.__doc__} Not so: {broken}" if broken else None


def _apart(subject: Subject, left: "Matrix", right: "Matrix") -> str | None:
    """How far the rows are apart, where that is further than they may be."""
    import numpy as np

    if left.shape != right.shape:
        return f"shapes {left.shape} and {right.shape}"
    distances = np.linalg.norm(left - right, axis=1)
    lengths = np.maximum(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    shares = distances / np.where(lengths > 0, lengths, 1)
    worst = int(shares.argmax())
    return f"item {worst} is apart by {shares[worst]:.2g} of its length" if shares[worst] > subject.tolerance else None
