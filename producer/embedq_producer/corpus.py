"""From what a command line asks for to a corpus that can be read."""

import sys
from collections.abc import Callable
from pathlib import Path

from embedq_core.collection_names import check_collection_name
from embedq_core.errors import RowError, UsageError
from embedq_core.settings import Settings
from embedq_core.text import shown
from embedq_plugins import EmbeddingModel
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.readers import FORMATS, FileSource, FilesSource, Reader, RowOptions, Source, SqlSource
from embedq_producer.splitting import PartSize, Splitter

STANDARD_INPUT = "-"


def open_corpus(request: CorpusRequest, settings: Settings, report: Callable[[RowError], None]) -> Reader:
    """The corpus that `request` names; rows that can't be read go to `report`.

    Raises UsageError for options that don't go together and SourceError for what can't be read at all.
    """
    check_request(request)
    options = RowOptions(
        prefix=request.prefix,
        # Before each part, where there are parts.
        prepend="" if request.chunk else request.prepend,
        metadata=tuple(request.metadata),
        encodings=tuple(request.encodings),
        item_bytes=settings.item_bytes,
        strict=request.strict,
    )
    return Reader(_sources(request, settings), options, report)


def split(reader: Reader, request: CorpusRequest, model: EmbeddingModel) -> None:
    """Have the contents of `reader` split into parts, if that is asked for. Raises UsageError where they can't be."""
    size = PartSize.of(request.chunk, request.overlap)
    if size is None:
        return
    splitter = Splitter(size, model, prepend=request.prepend)
    if splitter.estimated:
        print(f"embedq: {shown(model.model_id)} can't count tokens: they are estimated", file=sys.stderr)
    reader.split = splitter.parts


def check_request(request: CorpusRequest) -> None:
    """Raise UsageError for options that don't go together. What they name need not be there."""
    check_collection_name(request.collection)
    if request.yes and not request.prune:
        raise UsageError("--yes is for --prune")
    if request.allow_empty and not request.prune:
        raise UsageError("--allow-empty is for --prune")
    if not request.inputs and not request.files and request.sql is None:
        raise UsageError("name what to read: files, - for standard input, --files DIR GLOB, or --sql QUERY")
    if request.files and (request.inputs or request.sql is not None or request.format):
        unquoted = " (the pattern is to be quoted: --files . '**/*.md')" if request.inputs else ""
        raise UsageError(f"--files can't be used together with other input, --sql or --format{unquoted}")
    if request.sql is not None and (len(request.inputs) > 1 or request.format):
        raise UsageError("--sql takes one database as INPUT at most, and no --format")
    if request.attach and request.sql is None:
        raise UsageError("--attach is for --sql")
    if request.format is not None and request.format not in FORMATS:
        raise UsageError(f"there is no format {request.format!r}: there are {', '.join(FORMATS)}")
    size = PartSize.of(request.chunk, request.overlap)
    if request.binary:
        _check_binary(request, size)


def _check_binary(request: CorpusRequest, size: PartSize | None) -> None:
    if not request.files:
        raise UsageError("--binary is for --files")
    if request.encodings:
        raise UsageError("--binary and --encoding contradict each other")
    if request.prepend:
        raise UsageError("--prepend is for text, and --binary reads bytes")
    if size is not None:
        raise UsageError("--chunk is for text, and --binary reads bytes")


def _sources(request: CorpusRequest, settings: Settings) -> list[Source]:
    if request.files:
        return [FilesSource(tuple(request.file_pairs()), request.binary)]
    if request.sql is not None:
        return [SqlSource(request.sql, _database(request, settings), tuple(request.attached()))]
    return [FileSource(None if name == STANDARD_INPUT else Path(name), request.format) for name in request.inputs]


def _database(request: CorpusRequest, settings: Settings) -> Path | None:
    """What --sql reads: INPUT, else the database of vectors where there is one."""
    if request.inputs:
        return Path(request.inputs[0])
    return settings.database if settings.database.exists() else None
