"""`collections export`: a collection into a file, whole or not at all."""

import asyncio
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import BinaryIO

from embedq.transfer.entry_files import Head, Shape
from embedq.transfer.forms import JSONL, STANDARD_STREAM, form_of, write
from embedq_core.errors import SourceError, UsageError
from embedq_core.settings import Settings, load_settings
from embedq_core.text import shown
from embedq_producer.terminal import Figures, display
from embedq_store import Store


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the options of one command line ask for."""

    collection: str
    file: str
    format: str | None
    shape: Shape
    prefix: str
    overwrite: bool
    database: Path | None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `left_out` entries have no content, which is all that a file without vectors would hold."""

    collection: str
    file: str
    format: str
    entries: int
    left_out: int

    def as_object(self) -> dict[str, object]:
        """For JSON."""
        return {
            "collection": self.collection,
            "file": self.file,
            "format": self.format,
            "entries": self.entries,
            "left_out": self.left_out,
        }


def export(request: ExportRequest) -> Exported:
    """Write the file. Raises UsageError, CollectionMissing, DatabaseMissing, SourceError where it can't be written."""
    form = form_of(request.file, request.format)
    if request.file == STANDARD_STREAM:
        if form != JSONL:
            raise UsageError(f"--format {form} can't be written to the standard output: name a file")
        return _run(request, form, sys.stdout.buffer)
    if request.shape.base64 and form != JSONL:
        raise UsageError("--base64 is for --format jsonl: the others hold the bytes of vectors as they are")
    path = Path(request.file)
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        # By the name that was given: /dev/stdout leads to a pipe, which has no path.
        with _explained(path), path.open("wb") as file:
            return _run(request, form, file)
    if mode is not None and not request.overwrite:
        raise UsageError(f"{shown(request.file)} is there already: name another file, or say --overwrite")
    # What a link leads to is written, and the link stays.
    with written_whole(Path(os.path.realpath(path)), mode) as file:
        return _run(request, form, file)


def _mode(path: Path) -> int | None:
    """What the system says of a file: its kind and permissions; None where there is none. Raises SourceError."""
    with _explained(path), suppress(FileNotFoundError, NotADirectoryError):
        return path.stat().st_mode
    return None


def _run(request: ExportRequest, form: str, file: BinaryIO) -> Exported:
    try:
        return asyncio.run(_export(request, form, file, load_settings(database=request.database)))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _export(request: ExportRequest, form: str, file: BinaryIO, settings: Settings) -> Exported:
    # SIGTERM ends it as Ctrl-C does, which leaves no half file.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(SIGTERM, task.cancel)
    async with await Store.open(settings.database, read_only=True) as store:
        info = await store.collection(request.collection)
        async with store.transfer.snapshot(info, request.prefix) as snapshot:
            # Before the figures: of a large collection they take seconds.
            with display(f"export of {info.name}") as shows:
                figures = await snapshot.figures()
                configuration = await snapshot.configuration()
                head = Head(
                    name=info.name,
                    model=info.model_id,
                    configuration=None if configuration is None else dict(configuration),
                    dimension=None if figures.dimensions is None else figures.dimensions[0],
                    entries=figures.entries,
                )

                def told(done: int) -> None:
                    shows.show(Figures(done, done / max(figures.entries, 1)))

                done = await write(form, file, snapshot, head, request.shape, told)
            return Exported(info.name, request.file, form, done, figures.entries - done)


@contextmanager
def written_whole(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file beside `path`, to be written, that takes its place when the block has ended well, and else goes.

    With `mode`, it gets the permissions that this says: those of the file that was there. Raises SourceError where it
    can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _explained(path):
            with part.open("wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"{shown(str(path))} can't be written: {(error.strerror or str(error)).lower()}") from error
