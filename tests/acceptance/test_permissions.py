"""Users of Redis with the permissions that docs/reliability.md names, and no others."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from embedq_core.settings import Settings, load_settings
from embedq_jobs import open_queue
from embedq_worker.supplying import turn_of
from support.chunks import chunk, items, submit
from support.command_line import CommandLine
from support.waiting import BOUND_SECONDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
PASSWORD = "s3cret"  # noqa: S105 - for users that live for one test


def documented() -> dict[str, list[str]]:
    """The rules of each user, as the document has them."""
    commands = [line.split() for line in DOCUMENT.read_text().splitlines() if line.startswith("ACL SETUSER ")]
    return {name: rules for _, _, name, *rules in commands}


@pytest.fixture
def administrator(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        for name, rules in documented().items():
            client.execute_command("ACL", "SETUSER", name, *[rule.replace("PASSWORD", PASSWORD) for rule in rules])
        yield client
        client.execute_command("ACL", "DELUSER", *documented())


class As:
    """The command line, as a user of Redis."""

    def __init__(self, embedq: CommandLine, redis_url: str) -> None:
        self._embedq = embedq
        self._path = urlsplit(redis_url).path

    def __call__(self, user: str, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as in CommandLine
        url = f"unix://{user}:{PASSWORD}@{self._path}?db=1"
        result = self._embedq(*arguments, input=input, environment={"EMBEDQ_REDIS_URL": url})
        assert "NOPERM" not in result.err
        assert "permission" not in result.err
        return result.out


def test_each_part_works_with_the_permissions_that_are_documented_and_none_is_refused(
    embedq: CommandLine, redis_url: str, administrator: redis.Redis
) -> None:
    administrator.acl_log_reset()
    run = As(embedq, redis_url)
    rows = "id,content\n" + "".join(f"{number},text {number}\n" for number in range(20))
    submitted = run("producer", "submit", "pets", "-", "-m", "recording-10", input=rows).strip()
    assert json.loads(run("reader", "status", "--json"))["items"] == 20
    run("worker", "worker", "--burst")
    assert json.loads(run("reader", "runs", "--json"))[0]["embedded"] == 20
    assert json.loads(run("reader", "runs", "show", submitted, "--json"))["state"] == "complete"
    assert json.loads(run("reader", "runs", "wait", submitted, "--json"))["state"] == "complete"
    run("reader", "dead", "list")
    run("producer", "submit", "pets", "-", input=rows)
    run("worker", "ingest", "more", "-", "-m", "recording", input=rows)
    run("worker", "reembed", "more", "-m", "recording-10")
    run("worker", "worker", "--burst")
    assert json.loads(run("reader", "reembed", "--list", "--json"))[0]["state"] == "switched"
    run("producer", "submit", "more", "-", input="id,content\n20,text 20\n")
    run("worker", "worker", "--burst")
    run("worker", "collections", "rollback", "more", "--yes")
    run("worker", "worker", "--burst")
    run("worker", "ingest", "other", "-", "-m", "recording", input=rows)
    run("worker", "reembed", "other", "-m", "recording-10")
    assert json.loads(run("worker", "reembed", "other", "--cancel", "--yes", "--json"))["cancelled"] == 20
    run("producer", "collections", "delete", "more", "--yes")
    run("operator", "pause", "--collection", "pets")
    submitted = run("producer", "submit", "pets", "-", input=rows + "20,text 20\n").strip()
    assert "paused" in run("worker", "worker", "--burst") + run("reader", "pause", "--list")
    assert sum(each["paused"] for each in json.loads(run("reader", "status", "--json"))["queues"]) >= 1
    run("operator", "resume", "--all")
    assert json.loads(run("operator", "runs", "cancel", submitted, "--yes", "--json"))["cancelled"] == 21
    run("operator", "drain", "--wait")
    assert administrator.acl_log() == []


async def test_a_worker_may_hand_a_chunk_on_and_queue_what_a_re_embedding_lacks(
    redis_url: str, administrator: redis.Redis, settings: Settings
) -> None:
    administrator.acl_log_reset()
    url = f"unix://worker:{PASSWORD}@{urlsplit(redis_url).path}?db=1"
    async with open_queue(load_settings(database=settings.database, redis_url=url)) as queue:
        await submit(queue, chunk(items(3)))
        async with turn_of(queue, "pets", seconds=3) as held, asyncio.timeout(BOUND_SECONDS):
            assert held is not None
            turn = queue.names.turn("pets")
            # However long this process sleeps now, the turn lives; its renewal shows in a shorter life.
            await queue.redis.expire(turn, 1000)
            while await queue.redis.ttl(turn) > 3 and not held.lost:  # noqa: ASYNC110 - another task renews it
                await asyncio.sleep(0.05)
            assert not held.lost
        moved = chunk(items(3), model_id="recording-10")
        assert await queue.forwarding.forward(moved, "recording")
        assert await queue.forwarding.retract(moved, "recording")
    assert administrator.acl_log() == []


async def test_a_worker_may_keep_the_limits_of_a_model_with_others(
    redis_url: str, administrator: redis.Redis, settings: Settings
) -> None:
    administrator.acl_log_reset()
    url = f"unix://worker:{PASSWORD}@{urlsplit(redis_url).path}?db=1"
    async with open_queue(load_settings(database=settings.database, redis_url=url)) as queue:
        pace = queue.pace("model")
        assert (await pace.book(1, None)).wait == 0
        await pace.shift(1)
        await pace.hold(1)
    assert administrator.acl_log() == []


async def test_a_worker_may_see_what_others_have_claimed(
    redis_url: str, administrator: redis.Redis, settings: Settings
) -> None:
    administrator.acl_log_reset()
    url = f"unix://worker:{PASSWORD}@{urlsplit(redis_url).path}?db=1"
    async with open_queue(load_settings(database=settings.database, redis_url=url)) as queue:
        one, other = queue.claims("one", BOUND_SECONDS), queue.claims("other", BOUND_SECONDS)
        await one.publish({"block": b"contents"})
        there = (await other.publish({"block": b"contents"})).others
        assert await other.contents(there) == [b"contents"]
        await one.renew(["block"])
        assert await other.gone(there) == []
        await one.free(["block"])
        assert await other.gone(there) == there
        await other.publish({"block": b"contents"})
        await other.leave()
    assert administrator.acl_log() == []


@pytest.mark.usefixtures("administrator")
def test_what_is_not_documented_is_refused(redis_url: str) -> None:
    assert set(documented()) == {"producer", "worker", "reader", "operator"}
    for user in documented():
        forbidden = [["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["HGETALL", "another"], ["ACL", "LIST"]]
        if user == "reader":
            forbidden.append(["HSET", "embedq:collections", "pets", "another"])
        with redis.Redis(unix_socket_path=urlsplit(redis_url).path, username=user, password=PASSWORD) as client:
            for command in forbidden:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command)
