"""The models of the tests as a plugin: `EMBEDQ_PLUGINS` names this file."""

import os
from collections.abc import Callable

import embedq
from embedq_core.errors import ModelMisconfigured
from embedq_plugins.hookspecs import Register, RegisterKind
from support.models import (
    BinaryModel,
    ConfiguredKind,
    EitherModel,
    FaultyModel,
    PreparedModel,
    RecordingModel,
    SlowModel,
    raising,
    vector_of,
)


def _replaced(word: str, value: float) -> Callable[[list[str | bytes]], list[list[float]]]:
    """Give a vector full of `value` for contents with `word` in them."""
    return lambda batch: [[value] * 8 if word in str(item) else vector_of(item) for item in batch]


def _refused(_: list[str | bytes]) -> None:
    if os.environ.get("EMBEDQ_TEST_KEY") != "right":
        raise ModelMisconfigured("HTTP 401: the key in EMBEDQ_TEST_KEY is wrong")


@embedq.hookimpl
def register_embedding_models(register: Register) -> None:
    register(RecordingModel(), aliases=("rec",))
    register(RecordingModel("recording-10", batch_size=10))
    register(RecordingModel("recording-32", batch_size=32))
    register(RecordingModel("recording-wide", dimension=16))
    register(PreparedModel())
    register(BinaryModel("binary"))
    register(EitherModel("either"))
    register(SlowModel())
    register(FaultyModel(raising, "poisoned", batch_size=16))
    register(FaultyModel(_refused, "keyed", batch_size=16))
    register(FaultyModel(lambda batch: [vector_of(item) for item in batch[1:]], "too-few"))
    register(FaultyModel(lambda batch: [vector_of(item) for item in [*batch, "one more"]], "too-many"))
    register(
        FaultyModel(
            lambda batch: [[float("nan")] * 8 if "nan" in str(item) else vector_of(item) for item in batch], "nan"
        )
    )
    register(
        FaultyModel(
            lambda batch: [[float("inf")] * 8 if "inf" in str(item) else vector_of(item) for item in batch], "infinite"
        )
    )
    register(FaultyModel(lambda batch: [vector_of(item, 9 if "wide" in str(item) else 8) for item in batch], "ragged"))


@embedq.hookimpl
def register_model_kinds(register: RegisterKind) -> None:
    register(ConfiguredKind())
