"""What `models test` does: two sentences in, what came out and how long it took."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from embedq.tables import print_fields
from embedq_core.errors import UnsupportedContent
from embedq_core.model import embed_all, explained
from embedq_core.vectors import cosine_similarity
from embedq_plugins import EmbeddingModel, get_embedding_model, require_library

SENTENCES: Final = ("A dog chases a ball across the lawn.", "The puppy runs after a toy in the garden.")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model made of two sentences. `norms` are the lengths of their vectors, `similarity` is their cosine.

    `first_seconds` is the first call, with whatever is loaded for it; `items_per_second` is the second one.
    """

    model: str
    dimension: int
    norms: tuple[float, float]
    similarity: float
    first_seconds: float
    items_per_second: float


def run_trial(name: str, *, as_json: bool) -> None:
    """Try the model and print what it did. Raises UnknownModel, ModelError: whatever is wrong with it, on one line."""
    trial = try_model(get_embedding_model(name))
    if as_json:
        print(json.dumps(asdict(trial)))
        return
    print_fields(
        [
            ("model", trial.model),
            ("dimension", str(trial.dimension)),
            ("norms", ", ".join(f"{norm:.4f}" for norm in trial.norms)),
            ("similarity", f"{trial.similarity:.4f}"),
            ("first call", f"{trial.first_seconds:.2f} s"),
            ("speed", f"{trial.items_per_second:,.0f} items/s"),
        ]
    )


def try_model(model: EmbeddingModel) -> Trial:
    """Embed two sentences, as documents, in one call, and once more."""
    if not model.supports_text:
        raise UnsupportedContent(
            f"{model.model_id} takes no text: try it with 'embedq embed --binary -i FILE -m MODEL'"
        )
    require_library(model)
    began = time.perf_counter()
    first, second = _embedded(model)
    loaded = time.perf_counter()
    _embedded(model)
    done = time.perf_counter()
    return Trial(
        model=model.model_id,
        dimension=len(first),
        norms=(float(np.linalg.norm(first)), float(np.linalg.norm(second))),
        similarity=cosine_similarity(first, second),
        first_seconds=loaded - began,
        items_per_second=len(SENTENCES) / max(done - loaded, 1e-9),
    )


def _embedded(model: EmbeddingModel) -> list[list[float]]:
    with explained(model):
        return [list(map(float, row)) for row in embed_all(model, SENTENCES).matrix]
