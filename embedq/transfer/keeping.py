"""What can be read only once, such as standard input: kept in a file while it is checked, and then read again."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from embedq_core.errors import SourceError
from embedq_producer.readers.source import Progress
from embedq_producer.readers.stream import open_stream
from embedq_producer.terminal import Figures, display

_PIECE: Final = 1 << 20


def kept(path: Path | None, name: str, folder: Path) -> BinaryIO:
    """All that comes out of a pipe, None being standard input, unpacked, in a file that goes when it is closed.

    Nobody else sees the file, and it goes with a process that is killed. It stands in `folder`, beside the database
    that is to hold the same: where temporary files go otherwise there may be much less room. Raises SourceError.
    """
    with ExitStack() as failing, open_stream(path, name, Progress()) as stream, display(f"import from {name}") as shows:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = failing.enter_context(TemporaryFile(dir=folder))
            lines = 0
            while piece := stream.reader.read1(_PIECE):
                file.write(piece)
                lines += piece.count(b"\n")
                shows.show(Figures(lines, None, "reading"))
            file.flush()
        except OSError as error:
            raise SourceError(
                f"{name} can't be kept in {folder} until it is checked: {(error.strerror or str(error)).lower()}"
            ) from error
        failing.pop_all()
        return file
