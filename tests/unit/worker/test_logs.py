"""Log lines as JSON: what they are about, in fields of their own."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from embedq_core.errors import UnknownModel
from embedq_core.settings import Settings
from embedq_worker.logs import _json, about, endings_logged

JSON = Settings(database=Path("e.db"), log_format="json")


def line(
    message: str, *arguments: object, error: BaseException | None = None, extra: dict[str, object] | None = None
) -> dict[str, object]:
    """A log line as a program reads it."""
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    logger = logging.getLogger("embedq.worker")
    record = logger.makeRecord(logger.name, logging.WARNING, "f.py", 1, message, arguments, exc_info, extra=extra)
    text = _json().format(record)
    assert "\n" not in text
    loaded = json.loads(text)
    assert isinstance(loaded, dict)
    return loaded


def test_a_line_says_when_how_bad_who_and_what() -> None:
    said = line("%s: änderte %d", "docs", 3)
    assert list(said) == ["timestamp", "level", "logger", "message", "worker"]
    assert (said["level"], said["logger"], said["message"]) == ("WARNING", "embedq.worker", "docs: änderte 3")
    assert str(said["worker"]).endswith(f":{os.getpid()}")
    when = datetime.fromisoformat(str(said["timestamp"]))
    assert when.tzinfo == UTC
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60


def test_what_a_line_is_about_is_in_fields_of_its_own() -> None:
    extra = about("hashing", job="20261231-235959-x7kqb:12", collection="docs")
    said = line("done", extra=extra)
    assert said["run"] == "20261231-235959-x7kqb"
    assert (said["chunk"], said["collection"], said["model"]) == (12, "docs", "hashing")


def test_of_a_batch_all_runs_are_named_and_one_alone_is_its_run() -> None:
    assert about("hashing", runs=["a", "a"]) == {"model": "hashing", "run": "a"}
    assert about("hashing", runs=["b", "a", "b"]) == {"model": "hashing", "runs": ["a", "b"]}
    assert about("hashing") == {"model": "hashing"}


def test_a_traceback_is_one_field() -> None:
    with pytest.raises(ValueError, match="first line") as caught:
        raise ValueError("first line\nsecond line")
    said = line("failed", error=caught.value)
    assert str(said["exception"]).startswith("Traceback")
    assert str(said["exception"]).endswith("ValueError: first line\nsecond line")
    assert "exc_info" not in said


def test_the_error_that_ends_a_worker_is_a_log_line_too(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended, endings_logged(JSON):
        raise UnknownModel("there is no model 'x'")
    assert ended.value.code == 2
    (record,) = caplog.records
    assert (record.levelname, record.getMessage(), record.exc_info) == ("ERROR", "there is no model 'x'", None)


def test_an_error_of_our_own_ends_it_with_a_traceback_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended, endings_logged(JSON):
        raise ZeroDivisionError
    assert ended.value.code == 1
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_where_lines_are_text_the_error_is_left_to_the_command_line() -> None:
    with pytest.raises(UnknownModel), endings_logged(Settings(database=Path("e.db"))):
        raise UnknownModel("there is no model 'x'")
