"""The docstrings of the standard library that this Python runs on, as a corpus. Read from source, not imported."""

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from embedq_core.items import Item, metadata_text, unstorable
from embedq_producer.readers import Progress, Rejects, RowOptions, Source

# Tests, demonstrations and vendored packages are no documentation of the library.
_LEFT_OUT: Final = frozenset(
    {"__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "turtledemo"}
)

# Since Python 3.12 some modules are thin, and their Python text lies beside them.
_REAL_NAMES: Final = {"_pydatetime": "datetime", "_pydecimal": "decimal", "_pyio": "io"}

_LEAST_CHARACTERS: Final = 20


class DocstringSource(Source):
    """Every docstring of a module, class or function with a public name: its dotted name is the id."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(sysconfig.get_paths()["stdlib"])

    def describe(self) -> str:
        """The source in a few words."""
        return f"docstrings of {self._directory.name}"

    def check(self, options: RowOptions) -> None:
        """There is nothing that could be wrong with it."""

    def size(self) -> int | None:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self._files())

    def read(self, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:  # noqa: ARG002
        """Every docstring, module by module. Of a name that two files define, the first one counts."""
        seen: set[str] = set()
        for path in self._files():
            text = path.read_bytes()
            module = ".".join(path.relative_to(self._directory).with_suffix("").parts).removesuffix(".__init__")
            for item in docstrings(text, _REAL_NAMES.get(module, module), file_name=path.name):
                if item.id not in seen:
                    seen.add(item.id)
                    yield item
            progress.advance(len(text))

    def _files(self) -> Iterator[Path]:
        for path in sorted(self._directory.rglob("*.py")):
            parts = path.relative_to(self._directory).with_suffix("").parts
            names = [part for part in parts if part != "__init__"]
            public = all(not part.startswith("_") or part in _REAL_NAMES for part in names)
            if public and not _LEFT_OUT.intersection(parts):
                yield path


def docstrings(text: bytes, module: str, *, file_name: str) -> Iterator[Item]:
    """The docstrings in the source `text` of `module`, as items; none where it can't be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that a later Python will refuse
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    metadata = metadata_text({"file": file_name})
    for name, docstring in _walk(tree, module):
        if len(docstring) >= _LEAST_CHARACTERS and unstorable(docstring) is None:
            yield Item(name, f"{name}: {inspect.cleandoc(docstring)}", metadata)


_Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _walk(node: _Documented, name: str) -> Iterator[tuple[str, str]]:
    docstring = ast.get_docstring(node, clean=False)
    if docstring:
        yield name, docstring
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _walk(child, f"{name}.{child.name}")
