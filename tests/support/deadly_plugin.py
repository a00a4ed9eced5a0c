"""A model that does to its process what a content says: `EMBEDQ_PLUGINS` names this file."""

import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import embedq
from embedq_core.errors import ModelMisconfigured
from embedq_plugins import EmbeddingModel
from embedq_plugins.hookspecs import Register
from support.models import vector_of


class DeadlyModel(EmbeddingModel):
    """Writes what it is given to the file `EMBEDQ_TEST_INPUTS`, a line each with its process, then obeys."""

    supports_binary = True

    def __init__(self, model_id: str = "deadly", batch_size: int | None = 8, concurrency: int = 1) -> None:
        self.model_id = model_id
        self.batch_size = batch_size
        self.concurrency = concurrency
        self._calls = 0

    def embed_batch(self, items: Iterable[str | bytes]) -> Any:
        batch = list(items)
        with Path(os.environ["EMBEDQ_TEST_INPUTS"]).open("a") as file:
            file.writelines(f"{os.getpid()} {item!r}\n" for item in batch)
        self._calls += 1
        for item in batch:
            self._obey(item)
        return [[float("nan")] * 8 if item == "nan" else vector_of(item) for item in batch]

    def _obey(self, item: str | bytes) -> None:  # noqa: C901 - a list of orders
        match str(item).split():
            case ["kill", *_]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["abort", *_]:
                os.abort()
            case ["tired", *_] if self._calls > 1:
                os._exit(4)
            case ["orphan", path]:
                child = os.fork()
                if child:
                    Path(path).write_text(str(child))
                    os._exit(5)
                # It has all that its parent had open, and outlives it.
                signal.pause()
            case ["wait", path]:
                while not Path(path).exists():
                    time.sleep(0.005)
            case ["refuse", *_]:
                raise LookupError("this item is refused")
            case ["unreachable", path] if not Path(path).exists():
                Path(path).touch()
                raise ConnectionError("the line went dead")
            case ["key", path] if not Path(path).exists():
                raise ModelMisconfigured("the key is wrong")
            case ["leave", *_]:
                sys.exit("no more")
            case ["print", *_]:
                print("progress: 100 %")


@embedq.hookimpl
def register_embedding_models(register: Register) -> None:
    register(DeadlyModel())
    register(DeadlyModel("deadly-whole", batch_size=None, concurrency=4))
