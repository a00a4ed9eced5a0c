"""Collections out of a database, into another, and to other names, as a user does it."""

import json

import numpy as np
import pytest

from support.command_line import CommandLine

ROWS = 'id,content,metadata\na/1,first text,"{""k"": 1}"\na/2,second text,\nb/1,third text,\n'


@pytest.fixture
def docs(embedq: CommandLine) -> CommandLine:
    """A collection of three."""
    embedq("ingest", "docs", "-", "-m", "recording", input=ROWS)
    return embedq


def names(embedq: CommandLine) -> list[str]:
    return [each["name"] for each in json.loads(embedq("collections", "--json").out)]


def test_a_collection_goes_out_and_comes_in_without_a_call_of_the_model(docs: CommandLine) -> None:
    paid = sum(docs.batch_sizes)
    assert docs("collections", "export", "docs", "docs.npz").out == "exported 3 entries of docs to docs.npz\n"
    with np.load(docs.directory / "docs.npz") as loaded:
        assert loaded["ids"].tolist() == ["a/1", "a/2", "b/1"]
    elsewhere = ("-d", str(docs.directory / "other.db"))
    came = docs("collections", "import", "docs", "docs.npz", *elsewhere, "--json")
    assert json.loads(came.out) == {
        "collection": "docs",
        "model": "recording",
        "imported": 3,
        "replaced": 0,
        "unchanged": 0,
    }
    assert (
        "imported 0 entries into docs (recording): 0 replaced, 3 there already"
        in docs("collections", "import", "docs", "docs.npz", *elsewhere).out
    )
    exported = [docs("collections", "export", "docs", *where).out for where in ((), elsewhere)]
    assert exported[0] == exported[1]
    assert docs("ingest", "docs", "-", *elsewhere, input=ROWS).out.count("3 unchanged") == 1
    assert sum(docs.batch_sizes) == paid


def test_a_collection_goes_through_a_pipe(docs: CommandLine) -> None:
    out = docs("collections", "export", "docs").out
    elsewhere = ("-d", str(docs.directory / "other.db"))
    came = docs("collections", "import", "copied", "-", *elsewhere, "--json", input=out)
    assert (json.loads(came.out)["imported"], came.err) == (3, "")
    assert docs("collections", "export", "copied", *elsewhere).out == out.replace('"name":"docs"', '"name":"copied"')
    cut = docs("collections", "import", "cut", "-", input=out[: out.rindex('{"id"')], exit_code=2)
    assert "standard input ended after 2 of 3 entries: nothing was imported" in cut.err
    bare = docs("collections", "import", "bare", "-", input='{"id":"a","content":"first"}\n', exit_code=2)
    assert "'embedq submit COLLECTION -' embeds what has none" in bare.err
    assert names(docs) == ["docs"]


def test_what_is_exported_without_vectors_can_be_submitted(docs: CommandLine) -> None:
    out = docs("collections", "export", "docs", "--no-vectors", "--prefix", "a/").out
    assert out == '{"id":"a/1","content":"first text","metadata":{"k": 1}}\n{"id":"a/2","content":"second text"}\n'
    assert "2 embedded" in docs("ingest", "again", "-", "-m", "recording", input=out).out
    docs("ingest", "bare", "-", "-m", "recording", "--no-store", input=ROWS)
    result = docs("collections", "export", "bare", "bare.jsonl", "--no-vectors", "--json", exit_code=1)
    assert json.loads(result.out)["left_out"] == 3
    assert "3 entries were left out, having no content" in result.err


def test_show_says_what_is_current_dead_and_queued(docs: CommandLine) -> None:
    docs("submit", "docs", "-", input="id,content\nc,more\nd,more\n")
    shown = json.loads(docs("collections", "show", "docs", "--json").out)
    assert shown["coverage"] == {"current": 3, "of": 3, "problem": None}
    assert (shown["queued"], len(shown["queued_runs"]), shown["dead"]) == (2, 1, 0)
    words = docs("collections", "show", "docs", environment={"EMBEDQ_PLUGINS": "", "COLUMNS": "60"}).out
    assert "unknown: there is no model recording here" in words
    assert f"2 ({shown['queued_runs'][0]})" in words


def test_a_collection_is_renamed_where_nothing_is_queued_for_it(docs: CommandLine) -> None:
    docs("submit", "docs", "-", input="id,content\nc,more\n")
    result = docs("collections", "rename", "docs", "papers", exit_code=1)
    assert "1 item for 'docs' still queued" in result.err
    docs("worker", "--burst")
    result = docs("collections", "rename", "docs", "papers")
    assert (result.out, result.err) == ("renamed docs to papers\n", "")
    assert names(docs) == ["papers"]
    assert "4 unchanged" in docs("ingest", "papers", "-", input=ROWS + "c,more,\n").out
    docs("submit", "papers", "-", input="id,content\nd,late\n")
    docs("schedule", "add", "nightly", "0 3 * * *", "--", "submit", "papers", "--files", ".", "*.md")
    docs("schedule", "add", "other", "0 3 * * *", "--", "submit", "docs", "papers.csv")
    renamed = docs("collections", "rename", "papers", "docs", "--force", "--json")
    assert json.loads(renamed.out) == {"collection": "docs", "was": "papers", "schedules": ["nightly"]}
    assert "the schedule 'nightly' names papers still, and would make it anew" in renamed.err
    assert "'embedq schedule add --replace'" in renamed.err


def test_a_copy_costs_nothing_and_is_deleted_like_others(docs: CommandLine) -> None:
    paid = sum(docs.batch_sizes)
    assert docs("collections", "copy", "docs", "twin").out == "copied docs to twin: 3 entries\n"
    assert "there is a collection 'twin' already" in docs("collections", "copy", "docs", "twin", exit_code=2).err
    assert "3 unchanged" in docs("ingest", "twin", "-", input=ROWS).out
    assert sum(docs.batch_sizes) == paid
    copied = json.loads(docs("collections", "copy", "docs", "third", "--json").out)
    assert copied == {"collection": "third", "copy_of": "docs", "entries": 3}
    assert json.loads(docs("collections", "delete", "third", "--yes", "--json").out) == {
        "collection": "third",
        "deleted": 3,
    }
    assert names(docs) == ["docs", "twin"]


REFUSED = [
    (("export", "dosc"), "Did you mean 'docs'?"),
    (("export", "docs", "x.csv"), "doesn't tell its format: say --format jsonl"),
    (("export", "docs", "--format", "npz"), "can't be written to the standard output"),
    (("export", "docs", "--format", "xml"), "there is no format 'xml'"),
    (("export", "docs", "--json"), "--json says what was written to a file"),
    (("export", "docs", "x.npz", "--base64"), "--base64 is for --format jsonl"),
    (("import", "new", "-", "--format", "parquet"), "parquet can't be read from the standard input: name a file"),
    (("import", "new", "-"), "standard input was empty: nothing was imported"),
    (("import", "new", "nothing.npz"), "nothing.npz can't be read: no such file or directory"),
    (("import", "new@next", "nothing.npz"), "embedq keeps '@next' for itself"),
    (("rename", "docs", "docs@copying"), "embedq keeps '@copying' for itself"),
    (("rename", "docs", " "), "the collection needs a name"),
    (("copy", "dosc", "new"), "Did you mean 'docs'?"),
]


def test_what_makes_no_sense_is_refused_in_one_line(docs: CommandLine) -> None:
    for arguments, problem in REFUSED:
        result = docs("collections", *arguments, exit_code=2)
        assert problem in result.err
        assert len(result.err.splitlines()) == 1
