"""Reading a corpus in one line of a test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from embedq_core.errors import RowError
from embedq_core.items import Item
from embedq_producer.readers import FileSource, RowOptions, Source, read_corpus

# What is slow on a busy machine is not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

Read = Callable[..., tuple[list[Item], list[str]]]


def read_all(source: Source, **options: object) -> tuple[list[Item], list[str]]:
    """The items of a source, and what was reported."""
    errors: list[RowError] = []
    items = list(read_corpus(source, RowOptions(**options), errors.append))  # type: ignore[arg-type] # a test's own options
    return items, [str(error) for error in errors]


@pytest.fixture
def read() -> Read:
    return read_all


@pytest.fixture
def read_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Write a file of this name and these bytes into the working directory, and read it."""
    monkeypatch.chdir(tmp_path)

    def write_and_read(
        name: str,
        text: str | bytes,
        format: str | None = None,  # noqa: A002 - as in FileSource
        **options: object,
    ) -> tuple[list[Item], list[str]]:
        path = Path(name)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_all(FileSource(path, format), **options)

    return write_and_read
