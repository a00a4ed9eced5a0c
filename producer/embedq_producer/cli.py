"""The command that submits a corpus."""

from typing import Annotated

import typer

from embedq_core import options
from embedq_core.priority import Priority
from embedq_producer import corpus_options as corpus


def submit(
    collection: options.Collection,
    inputs: corpus.Inputs = None,
    format: corpus.Format = None,  # noqa: A002 - the option's name
    files: corpus.Files = None,
    encoding: corpus.Encoding = None,
    binary: corpus.Binary = False,
    sql: corpus.Sql = None,
    attach: corpus.Attach = None,
    strict: corpus.Strict = False,
    prefix: corpus.Prefix = "",
    prepend: corpus.Prepend = "",
    metadata: corpus.Metadata = None,
    chunk: corpus.Chunk = None,
    overlap: corpus.Overlap = None,
    store: corpus.Keep = True,
    model: options.Model = None,
    database: options.Database = None,
    priority: options.Urgency = Priority.NORMAL,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is stored or dead, and say so.")] = False,
    prune: corpus.Prune = False,
    yes: corpus.PruneYes = False,
    allow_empty: corpus.AllowEmpty = False,
    dry_run: corpus.DryRun = False,
    json: options.Json = False,
) -> None:
    """Queue a corpus for workers to embed, and print the id of the run.

    Each row of a file is an item: embedq submit talks talks.csv

    Each file below a directory is one: embedq submit docs --files ./docs '**/*.md'

    A row with columns named id and content uses them (and metadata, if it is an object); of any other row the
    first column is the id and the rest, joined by a space, the content.
    """
    from embedq_producer.submitting import run_submit

    run_submit(
        corpus.CorpusRequest(
            collection=collection,
            inputs=inputs or (),
            format=format,
            files=files or (),
            encodings=encoding or (),
            binary=binary,
            sql=sql,
            attach=attach or (),
            strict=strict,
            prefix=prefix,
            prepend=prepend,
            metadata=metadata or (),
            chunk=chunk,
            overlap=overlap,
            store=store,
            model=model,
            database=database,
            priority=priority,
            prune=prune,
            yes=yes,
            allow_empty=allow_empty,
            dry_run=dry_run,
            json=json,
        ),
        wait=wait,
    )
