"""What a question is given to work with, and how it is asked: in a process of its own, for a bounded time."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from benchmarks.figures import Answer, Line, QuestionObject
from benchmarks.machine import machine
from benchmarks.processes import Failed, Place
from benchmarks.turns import Say

Scale = Literal["quick", "standard", "large"]


@dataclass(slots=True)
class Bench:
    """A folder to work in, how large to be, and where to say how it goes."""

    folder: Path
    scale: Scale
    say: Say
    _places: int = field(default=0)

    def place(self, **environment: str) -> Place:
        """A new place with a database that isn't there yet."""
        self._places += 1
        return Place(self.folder / f"place-{self._places}", **environment)


class Question(Protocol):
    """A module that is a question."""

    TITLE: str
    LIMIT_SECONDS: float

    def measure(self, bench: Bench) -> Answer:
        """Find the answer."""


QUESTIONS: Final = ("startup", "trickle", "ingest", "scale_out", "memory", "growth", "search", "console", "real_model")


def question(name: str) -> Question:
    """The module that is the question."""
    return cast("Question", import_module(f"benchmarks.{name}"))


def ask(name: str, scale: Scale, folder: Path | None, *, apart: bool = True) -> QuestionObject:
    """Ask one question, in a process of its own unless told otherwise, and clean up after it.

    A question that fails, or takes longer than its limit, has one line that says so.
    """
    asked = question(name)
    work = Path(tempfile.mkdtemp(prefix="eqb-", dir=folder))
    result = work / "answer.json"
    began = time.perf_counter()
    try:
        if apart:
            problem = _in_a_process(name, scale, work, result, asked.LIMIT_SECONDS * (3 if scale == "large" else 1))
        else:
            _answer(name, scale, work, result)
            problem = ""
        if problem:
            answered = _object(asked, scale, Answer([_failure(problem)]))
        else:
            answered = cast("QuestionObject", json.loads(result.read_text()))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    answered["seconds"] = round(time.perf_counter() - began, 1)
    return answered


def _failure(problem: str) -> Line:
    # A target, so that the exit status tells of it.
    from benchmarks.figures import at_least

    return Line("all of it", "", target=at_least(1), state="not measured", note=problem)


def _answer(name: str, scale: Scale, work: Path, result: Path) -> None:
    asked = question(name)

    def say(text: str) -> None:
        print(f"  {name}: {text}", file=sys.stderr, flush=True)

    try:
        answer = asked.measure(Bench(work, scale, say))
    except Failed as error:
        answer = Answer([_failure(str(error).splitlines()[0])], {"problem": str(error)})
        say(str(error))
    result.write_text(json.dumps(_object(asked, scale, answer)))


def _object(asked: Question, scale: Scale, answer: Answer) -> QuestionObject:
    return {
        "title": asked.TITLE,
        "scale": scale,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "machine": machine(),
        "details": answer.details,
        "lines": [line.as_object(judged=scale != "quick") for line in answer.lines],
    }


def _in_a_process(name: str, scale: Scale, work: Path, result: Path, limit: float) -> str:
    """Why there is no answer, or an empty text."""
    process = multiprocessing.get_context("spawn").Process(target=_lead_a_group, args=(name, scale, work, result))
    process.start()
    try:
        process.join(limit)
        if process.is_alive():
            return f"took longer than {limit:.0f} s"
        return "" if result.exists() else f"ended with {process.exitcode}: see above"
    finally:
        # Workers and servers that it may have left behind are of its group.
        if process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        # It may have been too young to have a group.
        process.kill()
        process.join()


def _lead_a_group(name: str, scale: Scale, work: Path, result: Path) -> None:
    os.setpgid(0, 0)
    _answer(name, scale, work, result)
