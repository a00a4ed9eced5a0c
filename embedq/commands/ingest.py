"""`embedq ingest`: queue a corpus and embed it, here and now."""

from embedq_core import options
from embedq_core.priority import Priority
from embedq_producer import corpus_options as corpus


def ingest(
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
    prune: corpus.Prune = False,
    yes: corpus.PruneYes = False,
    allow_empty: corpus.AllowEmpty = False,
    dry_run: corpus.DryRun = False,
    json: options.Json = False,
) -> None:
    """Embed a corpus here and now, and return when all of it is stored or dead.

    The same as submit, worker and waiting in one: a queue and a worker are started if there are none. Stop it at
    any moment and run it again: nothing is missing then, and nothing is paid for twice.

    Each row of a file is an item: embedq ingest talks talks.csv

    Each file below a directory is one: embedq ingest docs --files ./docs '**/*.md'

    What the columns of rows mean 'embedq submit --help' says.
    """
    from embedq.ingesting import run_ingest

    run_ingest(
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
        )
    )
