"""Where plugins are found: the built-in models, installed distributions, EMBEDQ_PLUGINS.

`EMBEDQ_PLUGINS` tries out a plugin that is not packaged: names of modules, or paths of .py files, separated
as in PATH. A plugin of ten lines in `mine.py` works as

    EMBEDQ_PLUGINS=./mine.py embedq models
"""

import importlib
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final
from zlib import crc32

ENTRY_POINT_GROUP: Final = "embedq"
PLUGINS_VARIABLE: Final = "EMBEDQ_PLUGINS"
BUILT_IN: Final = "built-in"
LLM: Final = "llm"

# One that is an extra has its library's name, and imports the library when it is used.
_BUILT_IN: Final = (
    (BUILT_IN, "embedq_plugins.hashing"),
    ("sentence-transformers", "embedq_plugins.sentences"),
    ("http", "embedq_plugins.http"),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that has not been loaded: its name, and the call that returns the plugin or raises anything."""

    name: str
    load: Callable[[], object]


def discovered() -> Iterator[Candidate]:
    """All plugins there are, in the order in which they may claim names."""
    for name, module in _BUILT_IN:
        yield Candidate(name, partial(importlib.import_module, module))
    yield from _installed()
    yield from named_in(os.environ.get(PLUGINS_VARIABLE, ""))


def discovered_later() -> Iterator[Candidate]:
    """Plugins that take long to load: asked for names that no other plugin has, and for the list of all models.

    It is that of the `llm` tool, where that is installed.
    """
    spec = importlib.util.find_spec(LLM)
    # A folder of this name in the working directory has a specification as well, but no file.
    if spec is not None and spec.origin is not None:
        yield Candidate(LLM, partial(importlib.import_module, "embedq_plugins.llm_plugin"))


def named_in(value: str) -> Iterator[Candidate]:
    """The plugins that a value of EMBEDQ_PLUGINS names."""
    for name in dict.fromkeys(part.strip() for part in value.split(os.pathsep)):
        if name.endswith(".py") or os.sep in name:
            yield Candidate(name, partial(_load_file, Path(name).expanduser().resolve()))
        elif name:
            yield Candidate(name, partial(importlib.import_module, name))


def _installed() -> Iterator[Candidate]:
    from importlib.metadata import entry_points

    points = entry_points(group=ENTRY_POINT_GROUP)
    names = Counter(point.name for point in points)
    owned = [(point, point.dist.name if point.dist else "?") for point in points]
    # Sorted: which of two plugins is first must not depend on the file system.
    for point, owner in sorted(owned, key=lambda pair: (pair[0].name, pair[1])):
        yield Candidate(point.name if names[point.name] == 1 else f"{point.name} ({owner})", point.load)


def _load_file(path: Path) -> ModuleType:
    name = f"embedq_plugin_{path.stem}_{crc32(os.fsencode(path)):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} can't be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    # As an import does: dataclasses and pickle look a class's module up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
