"""What stands for sentence-transformers where torch is not installed: as much of it as embedq uses, and as it is.

`tests/models` runs the same tests with the library itself.
"""

from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from support.models import vector_of

DIMENSION = 16


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class SentenceTransformer:
    """A word is a token; a vector depends on the words that are read, the prompt's among them."""

    made: list[dict[str, Any]]
    forward_sizes: list[int]
    fits: int

    def __init__(self, name: str, **options: Any) -> None:
        if not Path(name).is_dir():
            raise OSError(f"{name} is not a local folder and is not a valid model identifier")
        self.made.append({"name": name, **options})
        self.prompts = {"query": "query: ", "document": "passage: ", "title": "title: "}
        self.max_seq_length = 256
        self._dimension = options["truncate_dim"] or DIMENSION
        self._type: Any = np.float32

    def to(self, dtype: Any) -> Self:
        self._type = dtype
        return self

    @staticmethod
    def tokenizer(text: str, **_: Any) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    def encode_document(self, texts: list[str], prompt_name: str | None = None, **options: Any) -> Any:
        return self._encode(texts, "document", prompt_name, **options)

    def encode_query(self, texts: list[str], prompt_name: str | None = None, **options: Any) -> Any:
        return self._encode(texts, "query", prompt_name, **options)

    def _encode(
        self,
        texts: list[str],
        task: str,
        prompt_name: str | None,
        prompt: str | None = None,
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        **_: Any,
    ) -> Any:
        self.forward_sizes.append(batch_size)
        if min(batch_size, len(texts)) > self.fits:
            raise OutOfMemoryError("Tried to allocate more than there is")
        before = self.prompts[prompt_name or task] if prompt is None else prompt
        rows = [vector_of(self._read(before + text), DIMENSION)[: self._dimension] for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        if normalize_embeddings:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(self._type)

    def _read(self, text: str) -> str:
        return " ".join(text.split()[: self.max_seq_length])


def stand_in() -> dict[str, ModuleType]:
    """Modules to put in the place of the library and of torch, with nothing remembered."""
    library, torch = ModuleType("sentence_transformers"), ModuleType("torch")
    members = {"made": [], "forward_sizes": [], "fits": 1000}
    library.SentenceTransformer = type("SentenceTransformer", (SentenceTransformer,), members)  # type: ignore[attr-defined] # a module made here
    # numpy has no bfloat16; what counts is that it is another type.
    torch.float16 = torch.bfloat16 = np.float16  # type: ignore[attr-defined] # a module made here
    torch.float32 = np.float32  # type: ignore[attr-defined] # a module made here
    return {"sentence_transformers": library, "torch": torch}
