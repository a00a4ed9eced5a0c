"""The built-in model: works at once, needs no weights, and is lexical."""

from collections.abc import Iterable

from embedq_plugins.hookspecs import Register, hookimpl
from embedq_plugins.model import EmbeddingModel


class HashingModel(EmbeddingModel):
    """Feature hashing: 384 dimensions, float32, rows of length 1; text without a word gives the zero vector.

    Lexical, not semantic: texts are similar when they share words, parts of identifiers or pieces of words.
    It knows no synonyms. The same text gives the same vector in every process and on every platform.
    """

    model_id = "hashing"
    batch_size: int | None = 256
    dimension: int | None = 384

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterable[Iterable[float]]:
        """The vectors of texts, as one float32 array."""
        # numpy stays out of commands that embed nothing.
        from embedq_plugins.features import hashed_vectors

        return hashed_vectors([item for item in items if isinstance(item, str)])


@hookimpl
def register_embedding_models(register: Register) -> None:
    """Register the built-in model."""
    register(HashingModel(), aliases=("hash",))
