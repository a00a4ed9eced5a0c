"""Metrics and logs through the command line, and what docs/metrics.md and the dashboard say of them."""

import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from embedq_jobs import QueueLoad
from embedq_store import DeadLetterSummary
from embedq_worker.failures import Bury, TryAgain
from embedq_worker.metrics import Seen, WorkerMetrics
from support.command_line import CommandLine
from support.started import Started
from support.waiting import BOUND_SECONDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())

_METRIC = re.compile(r"\b(?:embedq|process)_\w+")
_OF_HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


# --- a real worker


class Scraped:
    """What a worker tells at one moment."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=BOUND_SECONDS) as answer:  # noqa: S310 - the test's own worker
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            families = text_string_to_metric_families(answer.read().decode())
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))

    @property
    def items(self) -> dict[str, float | None]:
        """Items that are done, by outcome, for the model 'slow'."""
        outcomes = ("embedded", "reused", "unchanged", "failed")
        return {outcome: self("embedq_items_total", model="slow", outcome=outcome) for outcome in outcomes}


def scraped_until(url: str, condition: Callable[[Scraped], bool]) -> Scraped:
    """Scrape until a condition holds, `BOUND_SECONDS` at most."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition(scraped := Scraped(url)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return scraped


def first_url(worker: Started) -> tuple[str, list[str]]:
    """Where the worker says that its metrics are, and the lines up to there."""
    assert worker.stderr is not None
    lines = []
    for line in worker.stderr:
        lines.append(line)
        if found := re.search(r"http://[^\s\"]+", line):
            return found.group(), lines
    pytest.fail(f"no URL in {lines}")


def test_a_worker_is_scraped_while_it_works_and_after_and_agrees_with_the_ledger(embedq: CommandLine) -> None:
    hold = embedq.directory / "hold"
    hold.touch()
    environment = {"EMBEDQ_TEST_HOLD": str(hold)}
    worker = embedq.start("worker", "--metrics-port", "0", "--log-format", "json", environment=environment)
    try:
        url, lines = first_url(worker)
        rows = "id,content\n" + "".join(f"{number},text {number % 75}\n" for number in range(80))
        run = embedq("submit", "docs", "-", "-m", "slow", input=rows).out.strip()
        working = scraped_until(url, lambda scraped: scraped("embedq_in_flight_items", model="slow") == 80)
        assert working("embedq_in_flight_chunks", model="slow") == 1
        assert working.items["embedded"] == 0
        hold.unlink()
        done = scraped_until(url, lambda scraped: scraped("embedq_chunks_total", model="slow") == 1)
        shown = json.loads(embedq("runs", "show", run, "--json").out)
        assert done.items == {"embedded": 75, "reused": 5, "unchanged": 0, "failed": 0}
        assert done.items == {**{name: shown[name] for name in ("embedded", "reused", "unchanged")}, "failed": 0}
        assert done("embedq_model_calls_total", model="slow", result="returned") == shown["calls"] == 10
        assert done("embedq_model_inputs_total", model="slow") == shown["inputs"] == 75
        assert done("embedq_in_flight_items", model="slow") == 0
        seconds = done("embedq_model_call_seconds_sum", model="slow")
        assert seconds is not None
        assert seconds >= 10 * 0.05
        assert done("embedq_commit_seconds_count") == done("embedq_commit_rows_count")
        assert done("embedq_redis_up") == 1
        assert done("embedq_worker_draining") == 0
    finally:
        worker.terminate()
        _, rest = worker.communicate(timeout=BOUND_SECONDS)
    assert worker.returncode == 0, rest
    with pytest.raises(URLError):
        Scraped(url)
    logged = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert all({"timestamp", "level", "logger", "message", "worker"} <= line.keys() for line in logged)
    assert {line["worker"] for line in logged} == {f"{socket.gethostname()}:{worker.pid}"}
    (of_chunk,) = [line for line in logged if "80 items for 'docs'" in line["message"]]
    assert (of_chunk["run"], of_chunk["chunk"]) == (run, 0)
    assert (of_chunk["collection"], of_chunk["model"]) == ("docs", "slow")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody listens, and before it one on which nobody does.

    Both are below those that the system gives to whoever asks for any: nobody gets the free one meanwhile.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port - 1)).close()
            with socket.create_server(("127.0.0.1", port)):
                yield port
            return


def test_a_port_that_is_taken_is_a_clear_error(embedq: CommandLine, taken_port: int) -> None:
    said = embedq("worker", "--metrics-port", str(taken_port), exit_code=2).err
    assert said == (
        f"embedq: metrics can't be served at 127.0.0.1:{taken_port}: address already in use; "
        "name another place with --metrics-port (0: any port that is free) and --metrics-host\n"
    )


def test_each_of_several_processes_has_a_port_and_one_that_is_taken_ends_them_all(
    embedq: CommandLine, taken_port: int
) -> None:
    environment = {"EMBEDQ_METRICS_PORT": str(taken_port - 1), "EMBEDQ_LOG_FORMAT": "json"}
    said = embedq("worker", "--processes", "2", exit_code=2, environment=environment).err
    logged = [json.loads(line) for line in said.splitlines()]
    messages = [line["message"] for line in logged]
    assert f"metrics at 127.0.0.1, ports {taken_port - 1} to {taken_port}" in messages
    (ended,) = [line for line in logged if line["level"] == "ERROR"]
    assert f"127.0.0.1:{taken_port}: address already in use" in ended["message"]
    assert len({line["worker"] for line in logged}) >= 2, "the process above them, and those below"


def test_ports_beyond_the_last_one_are_refused(embedq: CommandLine) -> None:
    said = embedq("worker", "--metrics-port", "65536", exit_code=2).err
    assert said == "embedq: --metrics-port takes a port, from 0 to 65535, not 65536\n"
    said = embedq("worker", "--processes", "3", "--metrics-port", "65534", exit_code=2).err
    assert "name one of up to 65533 with --metrics-port" in said


def test_an_address_without_a_port_is_refused(embedq: CommandLine) -> None:
    said = embedq("worker", "--metrics-host", "0.0.0.0", exit_code=2).err  # noqa: S104 - nobody listens there
    assert said == "embedq: --metrics-host says where metrics are served: name the port, too, with --metrics-port\n"


def test_who_asks_for_no_metrics_and_no_json_does_not_load_what_makes_them() -> None:
    code = (
        "import sys, embedq_worker.running, embedq_worker.service, embedq_store.writer\n"
        "print([name for name in ('prometheus_client', 'pythonjsonlogger') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND_SECONDS, check=True
    )
    assert done.stdout == "[]\n"


# --- docs/metrics.md and the dashboard


def exposed() -> dict[str, Metric]:
    """Every metric, with a series for each of its labels, by the name under which it is queried."""
    metrics = WorkerMetrics(queue_bytes=1, fresh_seconds=15)
    model = metrics.of_model("hashing")
    model.call_failed(ValueError(), Bury())
    model.call_failed(ConnectionError(), TryAgain(1.0))
    model.died("ValueError", 1)
    load = QueueLoad("hashing", 1, 0, 0, 1, 1, None)
    metrics.surroundings.see(Seen(0.0, (load,), (DeadLetterSummary("pets", "ValueError", 1),)))
    return {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""): family
        for family in metrics.registry.collect()
    }


def labels_of(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


def names_in(expression: str) -> set[str]:
    """The metrics that a query asks for; of a histogram, its name."""
    return {_OF_HISTOGRAM.sub("", name) for name in _METRIC.findall(expression)}


def alerts() -> list[dict[str, Any]]:
    (text,) = re.findall(r"^```yaml\n(groups:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    rules: list[dict[str, Any]] = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return rules


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_page_has_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `((?:embedq|process)_\w+)` \| ([a-z, ]+) \| (.*?) \| \S.* \|$", PAGE, re.MULTILINE)
    said = {name: (kind.removesuffix(", shared"), set(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert len(rows) == len(said)
    families = exposed()
    assert said.keys() == families.keys()
    for name, (kind, labels) in said.items():
        family = families[name]
        assert kind == ("gauge" if family.type == "info" else family.type), name
        if name != "embedq_build_info":
            assert labels == labels_of(family), name


def test_metrics_are_named_as_prometheus_has_it() -> None:
    for name, family in exposed().items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert name.endswith("_total") == (family.type == "counter")
        assert family.documentation


def test_every_alert_asks_for_metrics_that_there_are() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 3
    families = exposed()
    for rule in rules:
        names = names_in(rule["expr"])
        assert names <= families.keys(), rule
        assert names or "up{" in rule["expr"], rule
        assert rule["annotations"]["summary"]


def test_the_dashboard_asks_for_metrics_that_there_are_and_for_all_of_embedq() -> None:
    asked = set().union(*map(names_in, queries()))
    families = exposed()
    assert asked <= families.keys()
    assert {name for name in families if name.startswith("embedq_")} <= asked


def test_the_dashboard_asks_for_labels_and_variables_that_there_are() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"model", "instance"} <= variables.keys()
    for name in ("model", "instance"):
        assert names_in(variables[name]["query"]["query"]) <= exposed().keys()
    families = exposed()
    for query in queries():
        assert set(re.findall(r"\$(\w+)", query)) <= {*variables, "__rate_interval"}, query
        for name, selected in re.findall(r"\b(embedq_\w+)\{(.*?)\}", query):
            wanted = set(re.findall(r"(\w+)=~", selected)) - {"instance"}
            assert wanted <= labels_of(families[_OF_HISTOGRAM.sub("", name)]), query
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)


def test_no_two_panels_of_the_dashboard_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
