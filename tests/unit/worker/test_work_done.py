"""What a worker says at its end: one object, of one process or of several."""

import json
from pathlib import Path

import msgspec
import pytest

from embedq_core.counts import Counts
from embedq_core.errors import ModelMisconfigured
from embedq_core.settings import Settings
from embedq_worker.telemetry import NOBODY
from embedq_worker.work_done import WorkDone, WorkReport, told_at_the_end

SETTINGS = Settings(database=Path("docs.db"))


def report(**counts: Counts) -> WorkReport:
    """That of a process which has done this with these models, in four seconds."""
    done = WorkDone(NOBODY)
    for model_id, each in counts.items():
        done.of_model(model_id).settled(each)
    return msgspec.structs.replace(done.report(SETTINGS, 1000.0), ended=1004.0)


def printed(told: WorkReport) -> bytes:
    return json.dumps(told.as_object()).encode() + b"\n"


def test_figures_are_told_of_each_model_and_of_all() -> None:
    told = report(
        small=Counts(embedded=3, reused=1, failed=1, calls=2, inputs=4), large=Counts(unchanged=2, updated=1)
    ).as_object()
    assert told["seconds"] == 4.0
    assert {name: told[name] for name in ("done", "embedded", "reused", "unchanged", "updated", "dead", "calls")} == {
        "done": 7,
        "embedded": 3,
        "reused": 1,
        "unchanged": 2,
        "updated": 1,
        "dead": 1,
        "calls": 2,
    }
    models = told["models"]
    assert isinstance(models, dict)
    assert list(models) == ["large", "small"]
    assert (models["small"]["done"], models["large"]["done"]) == (5, 2)


def test_a_model_that_had_nothing_to_do_is_named_with_zeros() -> None:
    told = report(idle=Counts()).as_object()
    models = told["models"]
    assert isinstance(models, dict)
    assert set(models["idle"].values()) == {0}
    assert {name: told[name] for name in models["idle"]} == models["idle"]


def test_the_work_of_several_processes_is_added_up_and_those_that_died_are_counted() -> None:
    first = report(small=Counts(embedded=3, calls=1), large=Counts(reused=1))
    second = report(small=Counts(embedded=4, removed=2, calls=1))
    told = [b"loading weights\n" + printed(first), printed(second), b"", b"loading weights\n", b"\xff\xfe"]
    together = report().with_parts(told)
    assert (together.processes, together.silent) == (2, 3)
    assert together.models == report(small=Counts(embedded=7, removed=2, calls=2), large=Counts(reused=1)).models
    assert together.as_object()["done"] == 8


def test_an_error_ends_it_with_what_was_done_until_then_and_with_nothing_where_nothing_had_begun(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*, served: bool) -> None:
        with told_at_the_end(SETTINGS, NOBODY) as done:
            if served:
                done.of_model("small").settled(Counts(embedded=3))
            raise ModelMisconfigured("the key is wrong")

    with pytest.raises(ModelMisconfigured):
        fail(served=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["database"], told["ended"] >= told["began"]) == (3, "docs.db", True)
    with pytest.raises(ModelMisconfigured):
        fail(served=False)
    assert capsys.readouterr().out == ""
