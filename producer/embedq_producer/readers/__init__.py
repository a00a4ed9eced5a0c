"""A corpus as items: files of rows, files as they lie in directories, and SQL, all read as a stream."""

from embedq_producer.readers.file import FORMATS, FileSource
from embedq_producer.readers.files import FilesSource
from embedq_producer.readers.options import RowOptions
from embedq_producer.readers.queries import LINES, QuerySource
from embedq_producer.readers.reader import Reader, read_corpus
from embedq_producer.readers.source import Progress, Rejects, Source
from embedq_producer.readers.sql import SqlSource

__all__ = [
    "FORMATS",
    "LINES",
    "FileSource",
    "FilesSource",
    "Progress",
    "QuerySource",
    "Reader",
    "Rejects",
    "RowOptions",
    "Source",
    "SqlSource",
    "read_corpus",
]
