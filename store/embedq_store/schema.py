"""The tables: what `llm` keeps, byte for byte, and embedq's own beside them, all named `embedq_*`."""

from datetime import UTC, datetime
from typing import Final

import aiosqlite

from embedq_core.errors import DatabaseUnusable

SCHEMA_VERSION: Final = 1

# Without all of these, changes in place and deletions go uncounted.
COUNTING_TRIGGERS: Final = (
    "embedq_embedding_updated",
    "embedq_embedding_deleted",
    "embedq_row_rewritten",
    "embedq_row_renumbered",
    "embedq_tail_deleted",
)

# As llm 0.36 leaves them in a new file (`sqlite_master.sql`), white space included, so that a file can't be
# told from one of its own. Order matters: it is the order in which they are created.
LLM_TABLES: Final = (
    """CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
)""",
    """CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name")""",
    """CREATE TABLE "collections" (
   "id" INTEGER PRIMARY KEY,
   "name" TEXT,
   "model" TEXT
)""",
    """CREATE UNIQUE INDEX "idx_collections_name"
    ON "collections" ("name")""",
    """CREATE TABLE "embeddings" (
   "collection_id" INTEGER REFERENCES "collections"("id"),
   "id" TEXT,
   "embedding" BLOB,
   "content" TEXT,
   "content_blob" BLOB,
   "content_hash" BLOB,
   "metadata" TEXT,
   "updated" INTEGER,
   PRIMARY KEY ("collection_id", "id")
)""",
    """CREATE INDEX "idx_embeddings_content_hash"
    ON "embeddings" ("content_hash")""",
)

# The migrations that llm 0.36 would apply to reach that schema: it finds its work done.
LLM_MIGRATION_SET: Final = "llm.embeddings"
LLM_MIGRATIONS: Final = (
    "m001_create_tables",
    "m002_foreign_key",
    "m003_add_updated",
    "m004_store_content_hash",
    "m005_add_content_blob",
)

LLM_COLUMNS: Final = {
    "collections": frozenset({"id", "name", "model"}),
    "embeddings": frozenset(
        {
            "collection_id",
            "id",
            "embedding",
            "content",
            "content_blob",
            "content_hash",
            "metadata",
            "updated",
        }
    ),
}

# What a search needs to know of changes that it can't see by looking for rowids beyond the last: see
# `embedq_store.freshness`. The triggers fire for other tools too. There is none on insert: it would slow bulk
# inserts, and INSERT OR REPLACE always takes a rowid beyond the last.
#
# embedq_changes counts, for each collection, vectors updated in place and rows deleted; embedq_rewrites only rows
# changed in place, embedq_metadata_changes only metadata. embedq_tails notes when the last row of the table was
# deleted: rowids beyond the floor, the last that was left, are given out again. Floors that a later one undercuts go,
# so numbers and floors rise together.
_LAST_ROWID: Final = "SELECT coalesce(max(rowid), -9223372036854775807) FROM embeddings"
_NOTE_TAIL: Final = f"""INSERT INTO embedq_tails (floor) {_LAST_ROWID};
        DELETE FROM embedq_tails WHERE floor >= (SELECT floor FROM embedq_tails ORDER BY number DESC LIMIT 1)
            AND number < (SELECT max(number) FROM embedq_tails);"""  # noqa: S608 - put together from constants
_NOTE_REWRITE: Final = f"""INSERT INTO embedq_rewrites VALUES (new.collection_id, 1)
            ON CONFLICT (collection_id) DO UPDATE SET rewrites = rewrites + 1;
        INSERT INTO embedq_rewrites SELECT old.collection_id, 1 WHERE old.collection_id <> new.collection_id
            ON CONFLICT (collection_id) DO UPDATE SET rewrites = rewrites + 1;
        {_NOTE_TAIL}"""  # noqa: S608 - put together from constants

EMBEDQ_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS embedq_schema (version INTEGER NOT NULL)",
    f"INSERT INTO embedq_schema SELECT {SCHEMA_VERSION} WHERE NOT EXISTS (SELECT 1 FROM embedq_schema)",  # noqa: S608
    """CREATE TABLE IF NOT EXISTS embedq_changes (
        collection_id INTEGER PRIMARY KEY,
        changes INTEGER NOT NULL
    )""",
    """CREATE TRIGGER IF NOT EXISTS embedq_embedding_updated AFTER UPDATE OF embedding, collection_id ON embeddings
    BEGIN
        INSERT INTO embedq_changes VALUES (new.collection_id, 1)
            ON CONFLICT (collection_id) DO UPDATE SET changes = changes + 1;
        INSERT INTO embedq_changes SELECT old.collection_id, 1 WHERE old.collection_id <> new.collection_id
            ON CONFLICT (collection_id) DO UPDATE SET changes = changes + 1;
    END""",
    """CREATE TRIGGER IF NOT EXISTS embedq_embedding_deleted AFTER DELETE ON embeddings
    BEGIN
        INSERT INTO embedq_changes VALUES (old.collection_id, 1)
            ON CONFLICT (collection_id) DO UPDATE SET changes = changes + 1;
    END""",
    """CREATE TABLE IF NOT EXISTS embedq_metadata_changes (
        collection_id INTEGER PRIMARY KEY,
        changes INTEGER NOT NULL
    )""",
    """CREATE TRIGGER IF NOT EXISTS embedq_metadata_updated AFTER UPDATE OF metadata ON embeddings
    WHEN old.metadata IS NOT new.metadata
    BEGIN
        INSERT INTO embedq_metadata_changes VALUES (new.collection_id, 1)
            ON CONFLICT (collection_id) DO UPDATE SET changes = changes + 1;
    END""",
    "CREATE TABLE IF NOT EXISTS embedq_rewrites (collection_id INTEGER PRIMARY KEY, rewrites INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS embedq_tails (number INTEGER PRIMARY KEY, floor INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS embedq_tails_floor ON embedq_tails (floor)",
    # UPDATE OR REPLACE may have removed the last row, without its being counted as deleted.
    f"""CREATE TRIGGER IF NOT EXISTS embedq_row_rewritten AFTER UPDATE OF embedding, collection_id, id ON embeddings
    BEGIN
        {_NOTE_REWRITE}
    END""",
    f"""CREATE TRIGGER IF NOT EXISTS embedq_row_renumbered AFTER UPDATE ON embeddings WHEN old.rowid <> new.rowid
    BEGIN
        {_NOTE_REWRITE}
    END""",
    f"""CREATE TRIGGER IF NOT EXISTS embedq_tail_deleted AFTER DELETE ON embeddings
    WHEN old.rowid > ({_LAST_ROWID})
    BEGIN
        {_NOTE_TAIL}
    END""",
    # Which mapped copies of collections were made from this file: see `embedq_store.copying`. A copy's token is the
    # rowid here, so that whatever copies the file without keeping rowids does not keep the token either.
    "CREATE TABLE IF NOT EXISTS embedq_copies (collection_id INTEGER NOT NULL)",
    # What vectors were made with, beside the model: see `embedq_store.configurations`. Keys of collections are given
    # out again, by whatever tool deletes one.
    """CREATE TABLE IF NOT EXISTS embedq_configurations (
        collection_id INTEGER PRIMARY KEY,
        configuration TEXT NOT NULL
    )""",
    """CREATE TRIGGER IF NOT EXISTS embedq_collection_deleted AFTER DELETE ON collections
    BEGIN
        DELETE FROM embedq_configurations WHERE collection_id = old.id;
    END""",
    """CREATE TABLE IF NOT EXISTS embedq_dead (
        key INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        chunk INTEGER NOT NULL,
        collection TEXT NOT NULL,
        id TEXT NOT NULL,
        content TEXT,
        content_blob BLOB,
        metadata TEXT,
        model TEXT NOT NULL,
        error TEXT NOT NULL,
        message TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        died REAL NOT NULL,
        UNIQUE (run, chunk, collection, id)
    )""",
    # For what is asked with every transaction: has this id a dead letter? And for counting them by their errors.
    "CREATE INDEX IF NOT EXISTS embedq_dead_item ON embedq_dead (collection, id)",
    "CREATE INDEX IF NOT EXISTS embedq_dead_error ON embedq_dead (error, collection)",
    # And for the newest, without a look at the contents of the others.
    "CREATE INDEX IF NOT EXISTS embedq_dead_died ON embedq_dead (died)",
    # Which collection is, or was, embedded anew beside itself: see `embedq_store.reembeddings`. `source` and `shadow`
    # are the keys of the collections with the old vectors and the new; `removing` is one whose rows are being removed.
    """CREATE TABLE IF NOT EXISTS embedq_reembeddings (
        key INTEGER PRIMARY KEY,
        collection TEXT NOT NULL,
        source INTEGER NOT NULL,
        shadow INTEGER NOT NULL,
        old_model TEXT NOT NULL,
        new_model TEXT NOT NULL,
        golden TEXT,
        recall REAL,
        drop_old INTEGER NOT NULL,
        run TEXT,
        state TEXT NOT NULL,
        message TEXT,
        started REAL NOT NULL,
        switched REAL,
        removing INTEGER
    )""",
    """CREATE UNIQUE INDEX IF NOT EXISTS embedq_reembeddings_open ON embedq_reembeddings (collection)
        WHERE state IN ('embedding', 'stopped')""",
    # Ids that the collection in use lacks, or has in an older version, while the other one's is the newer: after a
    # switch those that the new model could not embed, after a rollback those that came since the switch. `held` is the
    # hash of what the one in use had then; where it has something else, that is the newer.
    """CREATE TABLE IF NOT EXISTS embedq_reembedding_ids (
        shadow INTEGER NOT NULL,
        id TEXT NOT NULL,
        held BLOB,
        PRIMARY KEY (shadow, id)
    ) WITHOUT ROWID""",
    # Whoever deletes a collection, `llm` among them, ends what was going on with it: its key may be given out again.
    """CREATE TRIGGER IF NOT EXISTS embedq_reembedded_deleted AFTER DELETE ON collections
    BEGIN
        UPDATE embedq_reembeddings SET state = 'cancelled', message = 'collection ' || old.name || ' was deleted'
            WHERE state IN ('embedding', 'stopped') AND old.id IN (source, shadow);
        UPDATE embedq_reembeddings SET state = 'dropped'
            WHERE state IN ('switched', 'rolled back') AND old.id IN (source, shadow);
        UPDATE embedq_reembeddings SET removing = NULL WHERE removing = old.id;
        DELETE FROM embedq_reembedding_ids WHERE shadow = old.id;
    END""",
    # Ids of rows that were deleted from either of two collections while the one was embedded anew as the other, by
    # whatever tool: the switch looks at these, and not at all. They go when it ends, however that comes about.
    """CREATE TABLE IF NOT EXISTS embedq_reembedding_deletions (
        number INTEGER PRIMARY KEY,
        shadow INTEGER NOT NULL,
        id TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS embedq_reembedding_deletions_of ON embedq_reembedding_deletions (shadow)",
    # For what is asked with every row that is deleted.
    "CREATE INDEX IF NOT EXISTS embedq_reembeddings_state ON embedq_reembeddings (state, source, shadow)",
    """CREATE TRIGGER IF NOT EXISTS embedq_reembedded_row_deleted AFTER DELETE ON embeddings
    WHEN EXISTS (SELECT 1 FROM embedq_reembeddings WHERE state IN ('embedding', 'stopped')
        AND old.collection_id IN (source, shadow))
    BEGIN
        INSERT INTO embedq_reembedding_deletions (shadow, id) SELECT shadow, old.id FROM embedq_reembeddings
            WHERE state IN ('embedding', 'stopped') AND old.collection_id IN (source, shadow);
    END""",
    """CREATE TRIGGER IF NOT EXISTS embedq_reembedding_ended AFTER UPDATE OF state ON embedq_reembeddings
    WHEN new.state NOT IN ('embedding', 'stopped')
    BEGIN
        DELETE FROM embedq_reembedding_deletions WHERE shadow = new.shadow;
    END""",
    # To which collections writes wait, and until when, in seconds since the epoch: see `embedq_store.holding_back`.
    "CREATE TABLE IF NOT EXISTS embedq_holds (collection TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    # Collections that were deleted, and of which rows are left: see `embedq_store.removing`.
    "CREATE TABLE IF NOT EXISTS embedq_removals (collection_id INTEGER PRIMARY KEY, began REAL NOT NULL)",
    # What a chunk has come to, written with its rows: a chunk that runs twice is counted once.
    """CREATE TABLE IF NOT EXISTS embedq_chunks (
        run TEXT NOT NULL,
        chunk INTEGER NOT NULL,
        counts TEXT NOT NULL,
        finished REAL,
        PRIMARY KEY (run, chunk)
    ) WITHOUT ROWID""",
    # Commands that workers run at times, and what became of them: see `embedq_store.schedules`.
    """CREATE TABLE IF NOT EXISTS embedq_schedules (
        key INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        expression TEXT NOT NULL,
        timezone TEXT NOT NULL,
        arguments TEXT NOT NULL,
        directory TEXT NOT NULL,
        enabled INTEGER NOT NULL,
        due REAL NOT NULL,
        created REAL NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS embedq_schedule_runs (
        key INTEGER PRIMARY KEY,
        schedule INTEGER NOT NULL,
        due REAL,
        missed INTEGER NOT NULL,
        begun REAL NOT NULL,
        ended REAL,
        state TEXT NOT NULL,
        exit_code INTEGER,
        runs TEXT NOT NULL,
        runner TEXT NOT NULL,
        message TEXT NOT NULL,
        output TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS embedq_schedule_runs_of ON embedq_schedule_runs (schedule, key)",
)


async def check_schema(db: aiosqlite.Connection, path: str) -> bool:
    """Whether everything that `create_schema` makes is there. Raises DatabaseUnusable for a file of another kind."""
    rows = await db.execute_fetchall("SELECT name FROM sqlite_master WHERE type IN ('table', 'trigger', 'index')")
    names = {str(row[0]) for row in rows}
    if names & LLM_COLUMNS.keys():
        for table, columns in LLM_COLUMNS.items():
            rows = await db.execute_fetchall("SELECT name FROM pragma_table_info(?)", (table,))
            missing = columns - {str(row[0]) for row in rows}
            if missing:
                raise DatabaseUnusable(
                    f"{path}: its table '{table}' lacks {', '.join(sorted(missing))}: it was made by an older "
                    "llm, or by another program. Open it once with llm 0.36 or later, which brings it up to date; "
                    "if it is another program's, name another file."
                )
    if "embedq_schema" in names:
        rows = await db.execute_fetchall("SELECT max(version) FROM embedq_schema")
        version = int(next(iter(rows))[0] or 0)
        if version > SCHEMA_VERSION:
            raise DatabaseUnusable(
                f"{path}: was written by a newer embedq (schema {version}, this one knows {SCHEMA_VERSION}): "
                "upgrade embedq"
            )
    needed = {"collections", "embeddings", "embedq_schema", "embedq_changes", "embedq_dead", "embedq_chunks"}
    needed |= {"embedq_metadata_changes", "embedq_metadata_updated"}
    needed |= {"embedq_configurations", "embedq_collection_deleted"}
    needed |= {"embedq_reembeddings", "embedq_reembeddings_open", "embedq_reembedding_ids", "embedq_reembedded_deleted"}
    needed |= {"embedq_holds", "embedq_removals", "embedq_reembedding_deletions", "embedq_reembedding_deletions_of"}
    needed |= {"embedq_reembeddings_state", "embedq_reembedded_row_deleted", "embedq_reembedding_ended"}
    needed |= {"embedq_schedules", "embedq_schedule_runs", "embedq_schedule_runs_of"}
    needed |= {"embedq_rewrites", "embedq_tails", "embedq_tails_floor", "embedq_copies", *COUNTING_TRIGGERS}
    return needed | {"embedq_dead_item", "embedq_dead_error", "embedq_dead_died"} <= names


async def create_schema(db: aiosqlite.Connection) -> None:
    """Create what is missing. Call it inside a transaction."""
    rows = await db.execute_fetchall("SELECT name FROM sqlite_master")
    names = {str(row[0]) for row in rows}
    if not names & LLM_COLUMNS.keys():
        for statement in LLM_TABLES:
            if "_sqlite_migrations" not in statement or "_sqlite_migrations" not in names:
                await db.execute(statement)
        now = str(datetime.now(UTC))
        await db.executemany(
            "INSERT OR IGNORE INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
            [(LLM_MIGRATION_SET, name, now) for name in LLM_MIGRATIONS],
        )
    for statement in EMBEDQ_TABLES:
        await db.execute(statement)
