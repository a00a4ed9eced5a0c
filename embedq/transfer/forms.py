"""The forms of files that collections are exported to: told by name, opened, written."""

from pathlib import Path
from typing import BinaryIO, Final

from embedq.transfer.entry_files import EntryFile, Head, Shape, Told
from embedq_core.errors import UsageError
from embedq_core.text import shown
from embedq_store import Snapshot

STANDARD_STREAM: Final = "-"
"""Standard input, or output, in the place of a file's name."""

JSONL: Final = "jsonl"
PARQUET: Final = "parquet"
NPZ: Final = "npz"
FORMATS: Final = (JSONL, PARQUET, NPZ)
_SUFFIXES: Final = {".jsonl": JSONL, ".ndjson": JSONL, ".nl": JSONL, ".parquet": PARQUET, ".npz": NPZ}


def form_of(name: str, asked: str | None) -> str:
    """The form that is asked for, else that which the name of a file tells. Raises UsageError."""
    if asked is not None:
        if asked not in FORMATS:
            raise UsageError(f"there is no format {shown(asked)!r}: there are {', '.join(FORMATS)}")
        return asked
    form = JSONL if name == STANDARD_STREAM else _SUFFIXES.get(Path(name).suffix.lower())
    if form is None:
        raise UsageError(f"{shown(name)!r} doesn't tell its format: say --format {', --format '.join(FORMATS)}")
    return form


def opened(name: str, form: str, folder: Path) -> EntryFile:
    """The file of entries of this name, - being standard input; `folder` is for what can be read only once.

    Raises SourceError, and UsageError where the form needs a file.
    """
    if form == JSONL:
        from embedq.transfer.jsonl import JsonLinesFile

        return JsonLinesFile(None if name == STANDARD_STREAM else Path(name), folder)
    if name == STANDARD_STREAM:
        raise UsageError(f"--format {form} can't be read from the standard input: name a file")
    path = Path(name)
    if form == PARQUET:
        from embedq.transfer.parquet import ParquetEntries

        return ParquetEntries(path)
    from embedq.transfer.npz import NumpyFile

    return NumpyFile(path)


async def write(form: str, file: BinaryIO, snapshot: Snapshot, head: Head, shape: Shape, told: Told) -> int:
    """Write a collection to `file`; how many entries. Raises UsageError where the form can't hold it."""
    if form == JSONL:
        from embedq.transfer.jsonl import write_jsonl

        return await write_jsonl(file, snapshot, head, shape, told)
    if form == PARQUET:
        from embedq.transfer.parquet import write_parquet

        return await write_parquet(file, snapshot, head, shape, told)
    from embedq.transfer.npz import write_npz

    return await write_npz(file, snapshot, head, shape, told)
