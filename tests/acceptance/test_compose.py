"""What compose.yaml and the Dockerfile promise, as far as it can be proved without a container engine."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml
from redis.asyncio import Redis

from embedq_core.settings import ENV_PREFIX, Settings, load_settings
from embedq_jobs import open_queue
from embedq_jobs.checks import server_warnings
from embedq_jobs.embedded import find_server
from support.command_line import CommandLine
from support.parsing import parsed
from support.waiting import BOUND_SECONDS, Eventually

ROOT = Path(__file__).parents[2]

_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_SECONDS = {"type": "string", "pattern": "^[1-9][0-9]*s$"}

# What this project uses of the Compose specification, and nothing else: a key that is spelled wrong is a fault.
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["services", "volumes"],
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "services": {
            "type": "object",
            "required": ["redis", "worker", "producer"],
            "additionalProperties": {"$ref": "#/$defs/service"},
        },
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
    "$defs": {
        "service": {
            "type": "object",
            "required": ["image", "command"],
            "additionalProperties": False,
            "properties": {
                "image": {"type": "string", "pattern": "^[a-z]+:[a-z0-9-]+$"},
                "build": {
                    "type": "object",
                    "required": ["context"],
                    "additionalProperties": False,
                    "properties": {
                        "context": {"type": "string"},
                        "args": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                },
                "command": _STRINGS,
                "depends_on": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["condition"],
                        "additionalProperties": False,
                        "properties": {"condition": {"enum": ["service_started", "service_healthy"]}},
                    },
                },
                "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                "healthcheck": {
                    "type": "object",
                    "required": ["test", "interval", "timeout", "retries"],
                    "additionalProperties": False,
                    "properties": {
                        "test": {**_STRINGS, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
                        "interval": _SECONDS,
                        "timeout": _SECONDS,
                        "start_period": _SECONDS,
                        "retries": {"type": "integer", "minimum": 1},
                    },
                },
                "profiles": _STRINGS,
                "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                "stop_grace_period": _SECONDS,
                "volumes": {**_STRINGS, "items": {"type": "string", "pattern": "^[^:]+:/[^:]+(:ro)?$"}},
                "working_dir": {"type": "string", "pattern": "^/"},
            },
        },
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found = compose["services"]
    assert isinstance(found, dict)
    return found


def test_compose_uses_the_keys_and_types_of_the_compose_specification(compose: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(_SCHEMA).validate(compose)


def test_every_variable_that_compose_sets_is_a_setting_with_a_value_that_can_be_used(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {ENV_PREFIX + field.name.upper() for field in fields(Settings)}
    for name in ("worker", "producer"):
        environment = services[name]["environment"]
        assert set(environment) <= known
        for variable, value in environment.items():
            monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-\}", "", value))
        settings = load_settings()
        assert settings.database == Path("/data/embeddings.db")
        assert str.__str__(settings.redis_url or "") == "redis://redis:6379/0"


def test_worker_and_producer_are_one_image_with_one_database_and_one_redis(services: dict[str, Any]) -> None:
    worker, producer = services["worker"], services["producer"]
    for key in ("image", "build", "environment", "depends_on"):
        assert worker[key] == producer[key], key
    assert worker["environment"]["EMBEDQ_REDIS_URL"] == "redis://redis:6379/0"
    for service in (worker, producer):
        folder = str(Path(service["environment"]["EMBEDQ_DATABASE"]).parent)
        assert f"data:{folder}" in service["volumes"]


def test_the_commands_in_compose_are_commands_of_embedq(services: dict[str, Any]) -> None:
    assert parsed(services["worker"]["command"])["grace"] == 30
    assert "json" in parsed(services["producer"]["command"])


def test_a_worker_is_given_more_time_to_stop_than_it_gives_its_model(services: dict[str, Any]) -> None:
    grace = parsed(services["worker"]["command"])["grace"]
    assert isinstance(grace, float)
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) >= grace + 10


def test_no_port_is_published_and_volumes_are_declared(compose: dict[str, Any], services: dict[str, Any]) -> None:
    assert not any("ports" in service for service in services.values())
    mounted = {volume.partition(":")[0] for service in services.values() for volume in service["volumes"]}
    assert mounted - {"."} == set(compose["volumes"])
    assert ".:/corpus:ro" in services["producer"]["volumes"]


def test_the_producer_runs_only_when_it_is_asked_and_the_others_come_back_by_themselves(
    services: dict[str, Any],
) -> None:
    assert services["producer"]["profiles"] == ["tools"]
    assert "restart" not in services["producer"]
    for name in ("redis", "worker"):
        assert services[name]["restart"] == "unless-stopped"
        assert "profiles" not in services[name]


def test_nobody_starts_before_redis_is_healthy(services: dict[str, Any]) -> None:
    assert "healthcheck" in services["redis"]
    for name in ("worker", "producer"):
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


@pytest.fixture
def redis_of_compose(services: dict[str, Any]) -> Iterator[str]:
    """The URL of a Redis that is starting, with the options of compose but for where it listens and writes."""
    name, *options = services["redis"]["command"]
    assert name == "redis-server"
    with tempfile.TemporaryDirectory(prefix="embedq-test-") as folder:
        socket = Path(folder) / "redis.sock"
        place = ["--port", "0", "--unixsocket", str(socket), "--dir", folder]
        process = subprocess.Popen([find_server(), *options, *place], stdout=subprocess.DEVNULL)
        try:
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait(BOUND_SECONDS)


async def test_embedq_has_nothing_to_warn_of_in_the_redis_of_compose(
    redis_of_compose: str, eventually: Eventually
) -> None:
    async def answers() -> bool:
        async with Redis.from_url(redis_of_compose) as client:
            try:
                return bool(await client.ping())
            except redis.exceptions.ConnectionError:
                return False

    await eventually(answers)
    async with open_queue(load_settings(redis_url=redis_of_compose)) as queue:
        assert await server_warnings(queue) == []


async def test_the_health_check_of_the_worker_tells_a_live_worker_from_none(
    services: dict[str, Any], embedq: CommandLine, redis_url: str, eventually: Eventually
) -> None:
    kind, line = services["worker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    command = line.replace("$$", "$")  # how Compose spells a dollar sign that is not its own
    environment = {**embedq.environment, "EMBEDQ_REDIS_URL": redis_url}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])

    def healthy() -> bool:
        done = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, timeout=BOUND_SECONDS, check=False
        )
        return done.returncode == 0

    async def is_healthy() -> bool:
        return healthy()

    assert not healthy()
    worker = embedq.start(*services["worker"]["command"], environment={"EMBEDQ_REDIS_URL": redis_url})
    try:
        await eventually(is_healthy)
    finally:
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=BOUND_SECONDS)
    assert worker.returncode == 0, said
    assert not healthy()


# --- the Dockerfile


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, their names in capitals."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def sources_of_build(instructions: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Source and destination of what is copied from the folder of the Dockerfile."""
    for name, rest in instructions:
        if name == "COPY" and not rest.startswith("--from="):
            *sources, destination = rest.split()
            yield from ((source, destination) for source in sources)


def test_the_image_is_made_in_two_stages_and_the_second_takes_the_wheel_of_the_first(
    instructions: list[tuple[str, str]],
) -> None:
    stages = [rest for name, rest in instructions if name == "FROM"]
    assert len(stages) == 2
    assert all(stage.startswith("python:${PYTHON}-slim") for stage in stages)
    assert stages[0].endswith(" AS build")
    second = instructions[max(index for index, (name, _) in enumerate(instructions) if name == "FROM") :]
    assert [rest.split()[0] for name, rest in second if name == "COPY"] == ["--from=build"]


def test_the_image_has_a_python_that_the_project_supports(instructions: list[tuple[str, str]]) -> None:
    arguments = dict(rest.split("=", 1) for name, rest in instructions if name == "ARG")
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert f"Programming Language :: Python :: {arguments['PYTHON']}" in classifiers


def test_all_that_is_copied_into_the_image_exists_and_is_not_kept_from_the_builder(
    instructions: list[tuple[str, str]],
) -> None:
    rules = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")
    ]
    sources = [source for source, _ in sources_of_build(instructions)]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        ignored = False
        for rule in rules:
            if fnmatch(source, rule.removeprefix("!")):
                ignored = not rule.startswith("!")
        assert not ignored, f".dockerignore leaves {source} out"


def test_the_wheel_of_the_image_is_made_of_what_is_copied_and_nothing_else(
    instructions: list[tuple[str, str]],
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sources = {source for source, _ in sources_of_build(instructions)}
    needed = {package.split("/")[0] for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    needed |= {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert sources == needed


def test_the_image_runs_embedq_as_a_user_without_rights(instructions: list[tuple[str, str]]) -> None:
    last = dict(instructions)
    assert last["USER"] not in ("root", "0")
    assert f"useradd --create-home {last['USER']}" in " ".join(rest for name, rest in instructions if name == "RUN")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    # A list, so that embedq is process 1 and gets the signals itself, and no shell does.
    assert yaml.safe_load(last["ENTRYPOINT"]) == [next(iter(scripts))]
    assert "PYTHONUNBUFFERED=1" in last["ENV"]


def test_the_image_keeps_no_cache_and_names_no_index(instructions: list[tuple[str, str]]) -> None:
    runs = [rest for name, rest in instructions if name == "RUN" and "pip " in rest]
    assert len(runs) == 2
    for run in runs:
        assert "--no-cache-dir" in run
        assert "index" not in run
        assert "host" not in run
