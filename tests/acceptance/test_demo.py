"""`embedq demo`: the main job on real input, twice."""

import json
import sqlite3

from support.command_line import CommandLine


def test_the_demo_embeds_the_standard_library_and_answers_and_then_finds_nothing_to_do(embedq: CommandLine) -> None:
    first = json.loads(embedq("demo", "-d", embedq.database, "--json").out)
    count = first["run"]["embedded"]
    assert count > 2000
    assert (first["database"], first["run"]["done"]) == (str(embedq.database), count)
    (_, lines, _) = first["questions"]
    assert "bz2.BZ2File.readlines" in [entry["id"] for entry in lines["results"]]
    second = embedq("demo", "-d", embedq.database)
    assert f"{count:,} documents in " in second.out
    assert f"{count:,} unchanged" in second.out
    assert "no model call" in second.out
    assert second.out.count(" ms, ") == 3
    for entry in lines["results"]:
        assert f"{entry['score']:.3f}  {entry['id']}\n" in second.out
    assert str(embedq.database) in second.out
    assert "embedq similar stdlib" in second.out
    db = sqlite3.connect(embedq.database)
    assert db.execute("SELECT count(*) FROM embeddings").fetchone() == (count,)
    db.close()
