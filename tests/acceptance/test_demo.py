"""`embedq demo`: the main job on real input, twice."""

import re
import sqlite3

from support.command_line import CommandLine


def test_the_demo_embeds_the_standard_library_and_answers_and_then_finds_nothing_to_do(embedq: CommandLine) -> None:
    first = embedq("demo", "-d", embedq.database)
    count = int(re.search(r"([\d,]+) documents in", first.out).group(1).replace(",", ""))  # type: ignore[union-attr] # a failure says so
    assert count > 2000
    assert f"{count:,} embedded" in first.out
    assert first.out.count(" ms, ") == 3
    assert "bz2.BZ2File.readlines" in first.out
    assert str(embedq.database) in first.out
    assert "embedq similar stdlib" in first.out
    second = embedq("demo", "-d", embedq.database)
    assert f"{count:,} unchanged" in second.out
    assert "no model call" in second.out
    db = sqlite3.connect(embedq.database)
    assert db.execute("SELECT count(*) FROM embeddings").fetchone() == (count,)
    db.close()
