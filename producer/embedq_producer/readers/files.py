"""Files as they lie in directories: each is an item, its relative path the id."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_core.text import shown
from embedq_producer.readers.bad_row import BadRow
from embedq_producer.readers.decoding import decoded, starts_with_utf16_mark
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.rows import finished_item, too_large
from embedq_producer.readers.source import Progress, Rejects, Source
from embedq_producer.readers.stream import explained

_ENCODINGS: Final = ("utf-8", "latin-1")
_WILD: Final = frozenset("*?[")
_BOM: Final = "\ufeff"


@dataclass(frozen=True)
class FilesSource(Source):
    """The files that match a pattern in a directory, for several of both; sorted, listed once.

    Ids are relative paths with forward slashes. Text is kept with the line ends that it has, the same on
    every system; a byte order mark is dropped. With `binary` the content is the bytes.
    """

    directories: tuple[tuple[Path, str], ...]
    binary: bool = False

    def __post_init__(self) -> None:
        for _, pattern in self.directories:
            _check_pattern(pattern)

    def describe(self) -> str:
        """Directories and patterns as they were given."""
        return ", ".join(shown(f"{directory} {pattern}") for directory, pattern in self.directories)

    def check(self, options: RowOptions) -> None:
        """Look whether the directories are there."""
        if self.binary and options.encodings:
            raise UsageError("binary files have no encoding")
        for directory, _ in self.directories:
            name = shown(str(directory))
            with explained(name):
                status = directory.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise SourceError(f"{name} is not a directory")
            if not os.access(directory, os.R_OK | os.X_OK):
                raise SourceError(f"{name} can't be read: permission denied")

    def size(self) -> int:
        """Bytes of all files that match."""
        return sum(found.size for found in self._listing)

    def read(self, options: RowOptions, rejects: Rejects, progress: Progress) -> Iterator[Item]:
        """The item of every file that can be read."""
        for found in self._listing:
            try:
                item = self._item(found, options)
            except BadRow as bad:
                rejects.reject(shown(str(found.directory / found.id)), bad)
            else:
                yield item
            progress.advance(found.size)

    @cached_property
    def _listing(self) -> "tuple[_Found, ...]":
        found: dict[tuple[Path, str], _Found] = {}
        for directory, pattern in self.directories:
            for each in _found_in(directory, pattern):
                found.setdefault((directory, each.id), each)
        return tuple(found.values())

    def _item(self, found: "_Found", options: RowOptions) -> Item:
        if found.problem is not None:
            raise BadRow(found.problem)
        if found.size > options.item_bytes:
            raise too_large(options)
        try:
            with (found.directory / found.id).open("rb") as file:
                # One byte more than allowed tells a file that has grown since.
                data = file.read(options.item_bytes + 1)
        except OSError as error:
            raise BadRow(f"can't be read: {(error.strerror or str(error)).lower()}") from error
        return finished_item(found.id, data if self.binary else _text(data, options), None, options)


@dataclass(frozen=True, slots=True)
class _Found:
    directory: Path
    id: str
    size: int = 0
    problem: str | None = None


def _check_pattern(pattern: str) -> None:
    parts = (*PurePosixPath(pattern).parts, *PureWindowsPath(pattern).parts)
    if not pattern or pattern.strip("./\\") == "" or "\0" in pattern:
        raise UsageError(f"{shown(pattern)!r} is no pattern of files; '**/*.md' is one")
    if PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).anchor or ".." in parts:
        raise UsageError(f"the pattern {shown(pattern)!r} leads out of the directory: name the directory instead")
    if any("**" in part and part != "**" for part in PurePosixPath(pattern).parts):
        raise UsageError(f"'**' in {shown(pattern)!r} must stand alone between slashes, as in '**/*.md'")


def _found_in(directory: Path, pattern: str) -> list[_Found]:
    """What matches in one directory, sorted by id; nothing is opened."""
    # Up to Python 3.12 a last ** stands for directories alone.
    pattern = f"{pattern}/*" if PurePosixPath(pattern).name == "**" else pattern
    root = os.path.realpath(directory)
    parents: dict[Path, bool] = {}
    found: dict[str, _Found] = {}
    with explained(shown(str(directory))):
        for path in directory.glob(pattern):
            parent = path.parent
            if parent not in parents:
                parents[parent] = _is_within(root, parent)
            each = _looked_at(path, directory, root, parent_is_inside=parents[parent])
            if each is not None:
                found[each.id] = each
    for path, problem in _unlisted(directory, pattern):
        identifier = path.relative_to(directory).as_posix()
        found.setdefault(identifier, _Found(directory, identifier, problem=problem))
    return [found[key] for key in sorted(found)]


def _unlisted(directory: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    """Directories that the pattern leads into and that can't be listed, and why: `glob` passes over them in silence."""
    parts = PurePosixPath(pattern).parts
    fixed = next((place for place, part in enumerate(parts) if _WILD.intersection(part)), len(parts) - 1)
    depth = None if "**" in parts else len(parts) - 1 - fixed
    waiting = [(directory.joinpath(*parts[:fixed]), 0)]
    while waiting:
        folder, level = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            yield folder, f"can't be listed: {(error.strerror or str(error)).lower()}"
        else:
            if depth is None or level < depth:
                waiting += [(each, level + 1) for each in below]


def _looked_at(path: Path, directory: Path, root: str, *, parent_is_inside: bool) -> _Found | None:
    identifier = path.relative_to(directory).as_posix()
    try:
        status = path.lstat()
        outside = not parent_is_inside
        if stat.S_ISLNK(status.st_mode):
            status = path.stat()
            outside = not _is_within(root, path)
    except OSError as error:
        reason = "points to nothing" if path.is_symlink() else (error.strerror or str(error)).lower()
        return _Found(directory, identifier, problem=f"can't be read: {reason}")
    if stat.S_ISDIR(status.st_mode):
        return None
    if outside:
        return _Found(directory, identifier, problem="is not followed: it is a link out of the directory")
    if not stat.S_ISREG(status.st_mode):
        return _Found(directory, identifier, problem="is no regular file")
    return _Found(directory, identifier, status.st_size)


def _is_within(root: str, path: Path) -> bool:
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def _text(data: bytes, options: RowOptions) -> str:
    encodings = options.encodings or _ENCODINGS
    if not options.encodings and starts_with_utf16_mark(data):
        # The mark says more than a list of guesses, the last of which takes anything.
        encodings = ("utf-16", *encodings)
    text = decoded(data, encodings)
    if not options.encodings and "\0" in text:
        raise BadRow("isn't text, it holds NUL bytes: use --binary, or name its encoding with --encoding")
    return text.removeprefix(_BOM)
