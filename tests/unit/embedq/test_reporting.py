"""How `status` names a worker."""

from dataclasses import replace

import pytest

from embedq.reporting import Status, _print, _worker
from embedq_jobs import QueueLoad


def test_a_worker_is_shown_with_the_bytes_it_has_in_hand_and_may_have() -> None:
    report = {"host": "here", "pid": 7, "in_hand_bytes": 1024, "in_hand_bytes_limit": 64 * 1024 * 1024}
    assert _worker(report) == "here:7 (in hand 1.0 KiB of 64 MiB)"


def test_a_worker_of_an_earlier_version_or_with_nothing_to_serve_is_shown_by_its_place() -> None:
    assert _worker({"host": "here", "pid": 7}) == "here:7"
    assert _worker({"host": "here", "pid": 7, "in_hand_bytes": 0, "in_hand_bytes_limit": 0}) == "here:7"


def test_time_left_is_told_only_where_somebody_works() -> None:
    load = QueueLoad("m", jobs=1, in_progress=0, deferred=0, items=30, bytes=9, oldest=None)
    status = Status("here", "x.db", 1, [load], 2.0, [], [], [])
    assert status.seconds_left is None
    assert replace(status, workers=[{"host": "h", "pid": 1}]).seconds_left == 15


def test_what_is_wrong_with_a_model_is_shown_once_however_many_workers_say_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = {"host": "h", "pid": 1, "troubles": {"m": "HTTP 401: check it"}}
    workers = [report, report | {"pid": 2}, {"host": "of an earlier version", "pid": 3}]
    _print(Status("here", "x.db", 1, [], 0.0, workers, [], []))
    lines = [line for line in capsys.readouterr().out.splitlines() if "trouble" in line]
    assert [line.split(maxsplit=1)[1] for line in lines] == ["m: HTTP 401: check it"]
