"""Libraries that a model needs and that may be missing, and what it means that a model can't be loaded."""

import importlib.util
import socket
from collections.abc import Iterator
from typing import TypeAlias

from embedq_core.errors import MissingLibrary, ModelMisconfigured, ModelUnavailable
from embedq_core.text import excerpt
from embedq_plugins.kinds import ModelKind
from embedq_plugins.model import EmbeddingModel

Needing: TypeAlias = EmbeddingModel | ModelKind
"""What names a library, and how to install it."""


def is_installed(needing: Needing) -> bool:
    """Whether the library of a model, or of a kind, is there. It is looked for, not imported."""
    if needing.library is None:
        return True
    try:
        return importlib.util.find_spec(needing.library) is not None
    except ValueError:
        # A module that was put in place by hand has no specification.
        return True
    except ImportError:
        return False


def require_library(model: EmbeddingModel) -> None:
    """Raise MissingLibrary where the library of `model` is not installed."""
    if not is_installed(model):
        how = f": {model.install}" if model.install else ""
        raise MissingLibrary(f"{model.model_id} needs {model.library}, which is not installed{how}")


def load_failure(model: EmbeddingModel, what: str, error: Exception) -> ModelUnavailable:
    """The error to raise where `what`, the weights of `model`, can't be loaded because of `error`, on one line.

    ModelMisconfigured, but where something on the way may pass by itself.
    """
    if isinstance(error, ModelUnavailable):
        return error
    reason = excerpt(str(error) or type(error).__name__, 300)
    kind = ModelUnavailable if any(map(_passes, _causes(error))) else ModelMisconfigured
    return kind(f"{model.model_id}: {what} can't be loaded: {reason}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _passes(error: BaseException) -> bool:
    """Whether the connection is at fault. Clients of HTTP have classes of their own, which are known by their names."""
    names = ("ConnectError", "ConnectionError", "ConnectTimeout", "ReadTimeout")
    # A switch that forbids connections is no fault of them, and stays where it is.
    offline = type(error).__name__ == "OfflineModeIsEnabled"
    return not offline and (
        isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or type(error).__name__ in names
    )
