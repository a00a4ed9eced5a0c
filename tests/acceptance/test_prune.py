"""`--prune`, as a user runs it: what the source no longer has is removed, after all of it was read."""

import json
import os
import pty
import sqlite3
import subprocess
from pathlib import Path

import pytest

from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS


@pytest.fixture
def notes(embedq: CommandLine) -> Path:
    """A folder of six notes, which are in the collection `notes`."""
    folder = embedq.directory / "notes"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.md", "b.md", "c.md", "d.md", "sub/e.md", "sub/f.md"):
        (folder / name).write_text(f"what {name} says")
    embedq("ingest", "notes", "-m", "recording", "--files", "notes", "**/*.md")
    return folder


NIGHTLY = ("notes", "--files", "notes", "**/*.md", "--prune")


def stored(embedq: CommandLine) -> list[str]:
    db = sqlite3.connect(embedq.database)
    try:
        return [row[0] for row in db.execute("SELECT id FROM embeddings ORDER BY id")]
    finally:
        db.close()


def test_a_file_that_is_gone_is_removed_and_said(embedq: CommandLine, notes: Path) -> None:
    (notes / "a.md").unlink()
    assert "--prune would remove 1 entry" in embedq("ingest", *NIGHTLY, "--dry-run").out
    assert json.loads(embedq("ingest", *NIGHTLY, "--dry-run", "--json").out)["pruned"] == 1
    assert stored(embedq)[0] == "a.md"
    assert "pruned 1 entry that the source no longer has" in embedq("ingest", *NIGHTLY).err
    assert stored(embedq) == ["b.md", "c.md", "d.md", "sub/e.md", "sub/f.md"]
    answer = json.loads(embedq("submit", *NIGHTLY, "--json").out)
    assert (answer["pruned"], answer["prune_left"], answer["prune_refused"]) == (0, 0, None)


def test_much_is_removed_only_with_yes_and_the_rest_is_submitted(embedq: CommandLine, notes: Path) -> None:
    (notes / "a.md").unlink()
    (notes / "b.md").unlink()
    (notes / "new.md").write_text("new")
    foreseen = embedq("ingest", *NIGHTLY, "--dry-run").out.splitlines()[-1]
    assert foreseen == (
        "--prune would remove 2 entries only where somebody says so: 2 of 6 entries would go, more than 20%: say --yes "
        "if that is right"
    )
    assert embedq("submit", *NIGHTLY, "--dry-run", "--yes").out.splitlines()[-1] == "--prune would remove 2 entries"
    refused = embedq("ingest", *NIGHTLY, exit_code=1)
    assert "nothing was pruned: 2 of 7 entries would go, more than 20%: say --yes if that is right" in refused.err
    assert len(stored(embedq)) == 7
    assert json.loads(embedq("ingest", *NIGHTLY, "--yes", "--json").out)["pruned"] == 2
    assert stored(embedq) == ["c.md", "d.md", "new.md", "sub/e.md", "sub/f.md"]


def test_a_folder_that_is_not_mounted_empties_nothing_even_with_yes(embedq: CommandLine, notes: Path) -> None:
    notes.rename(embedq.directory / "unmounted")
    notes.mkdir()
    told = json.loads(embedq("submit", *NIGHTLY, "--yes", "--dry-run", "--json").out)
    assert (told["items"], told["pruned"]) == (0, 6)
    assert "Say --allow-empty if that is right" in told["prune_refused"]
    refused = embedq("submit", *NIGHTLY, "--yes", exit_code=1)
    assert "nothing was pruned: the source is empty, so 6 of 6 entries would go: is it mounted?" in refused.err
    assert len(stored(embedq)) == 6
    assert "pruned 6 entries" in embedq("submit", *NIGHTLY, "--yes", "--allow-empty").err
    assert stored(embedq) == []


def test_a_renamed_file_is_not_paid_for_again_though_its_worker_comes_later(embedq: CommandLine, notes: Path) -> None:
    (notes / "a.md").rename(notes / "z.md")
    paid = sum(embedq.batch_sizes)
    assert "1 entry will go with the next --prune" in embedq("submit", *NIGHTLY).err
    embedq("worker", "--burst")
    assert sum(embedq.batch_sizes) == paid
    assert "pruned 1 entry" in embedq("submit", *NIGHTLY).err
    assert stored(embedq) == ["b.md", "c.md", "d.md", "sub/e.md", "sub/f.md", "z.md"]


def test_nothing_is_removed_where_a_folder_or_a_file_can_not_be_read(embedq: CommandLine, notes: Path) -> None:
    (notes / "sub").chmod(0)
    try:
        result = embedq("submit", *NIGHTLY, "--yes", exit_code=1, permissions_hold=True)
    finally:
        (notes / "sub").chmod(0o700)
    assert "skipped: notes/sub: can't be listed: permission denied" in result.err
    assert "nothing was pruned: 1 row of the source could not be read" in result.err
    assert len(stored(embedq)) == 6


def test_what_makes_no_sense_is_refused_before_anything_is_queued(embedq: CommandLine, redis_url: str) -> None:
    (embedq.directory / "one.txt").write_text("one")
    shared = {"EMBEDQ_REDIS_URL": redis_url}
    result = embedq("submit", *NIGHTLY[:1], "--files", ".", "*", "--prune", exit_code=2, environment=shared)
    assert "is not there: run it where the workers' database is" in result.err
    assert json.loads(embedq("runs", "--json", environment=shared).out) == []
    assert "--yes is for --prune" in embedq("submit", "notes", "--files", ".", "*", "--yes", exit_code=2).err
    refused = embedq("submit", "notes", "--files", ".", "*", "--allow-empty", exit_code=2)
    assert "--allow-empty is for --prune" in refused.err
    assert "embedq keeps '@next' for itself" in embedq("submit", "a@next", "--files", ".", "*", exit_code=2).err


def test_somebody_at_a_terminal_is_asked(embedq: CommandLine, notes: Path) -> None:
    (notes / "a.md").unlink()
    (notes / "b.md").unlink()
    leader, follower = pty.openpty()
    os.write(leader, b"y\n")
    process = subprocess.Popen(
        embedq.command("submit", *NIGHTLY),
        cwd=embedq.directory,
        env={**embedq.environment, "TERM": "dumb"},
        stdin=follower,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            seen += os.read(leader, 4096)
        except OSError:  # the terminal is closed
            break
    os.close(leader)
    assert process.wait(BOUND_SECONDS) == 0
    assert b"The source no longer has 2 of 6 entries of notes. Remove them? [y/N]" in seen
    assert b"pruned 2 entries" in seen
