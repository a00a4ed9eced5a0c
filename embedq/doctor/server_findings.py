"""What the doctor says of a Redis server."""

from collections.abc import Iterator
from typing import Final

from embedq.doctor.finding import Finding, Verdict
from embedq.inspecting import size
from embedq_jobs.health import ServerFacts
from embedq_producer.terminal import duration

OLDEST_REDIS: Final = 5
MEMORY_WARN_SHARE: Final = 0.9
CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 1.0, 15.0


def server_findings(server: ServerFacts) -> Iterator[Finding]:
    """Whether it keeps what it is given, has room, and goes by the same clock."""
    yield _version(server)
    yield _persistence(server)
    yield _eviction(server)
    yield _memory(server)
    if server.replica:
        yield Finding(Verdict.fail, "role", "this Redis is a replica", "name its master in EMBEDQ_REDIS_URL")
    yield _clock(server.clock_ahead)


def _untold(what: str, command: str) -> Finding:
    return Finding(Verdict.warn, what, "Redis does not tell this user", f"allow {command} to the user (ACL SETUSER)")


def _version(server: ServerFacts) -> Finding:
    if server.version is None:
        return _untold("version", "+info")
    major = server.version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_REDIS:
        return Finding(Verdict.fail, "version", f"Redis {server.version}", f"upgrade it to {OLDEST_REDIS} or later")
    return Finding(Verdict.ok, "version", f"Redis {server.version}")


def _persistence(server: ServerFacts) -> Finding:
    if server.append_only is None:
        return _untold("persistence", "+info")
    if not server.append_only:
        detail = "no append-only file: what is queued is lost when Redis ends"
        return Finding(Verdict.fail, "persistence", detail, "set appendonly yes")
    if server.append_error:
        detail = "Redis can't write its append-only file"
        return Finding(Verdict.fail, "persistence", detail, "see its log, and the free space on its disk")
    if server.append_fsync == "no":
        detail = "the append-only file is left to the system: a machine that fails may lose half a minute"
        return Finding(Verdict.warn, "persistence", detail, "set appendfsync everysec, or always")
    fsync = "" if server.append_fsync is None else f", synced {server.append_fsync}"
    return Finding(Verdict.ok, "persistence", f"append-only file{fsync}")


def _eviction(server: ServerFacts) -> Finding:
    if server.policy is None:
        return _untold("eviction", "+info")
    if server.policy == "noeviction":
        return Finding(Verdict.ok, "eviction", "noeviction")
    # Without a limit nothing is evicted; one may be set at any time.
    verdict = Verdict.fail if server.maxmemory else Verdict.warn
    detail = f"{server.policy}: Redis may throw queued items away when memory is short"
    return Finding(verdict, "eviction", detail, "set maxmemory-policy noeviction")


def _memory(server: ServerFacts) -> Finding:
    if server.used_memory is None or server.maxmemory is None:
        return _untold("memory", "+info")
    if not server.maxmemory:
        return Finding(Verdict.ok, "memory", f"{size(server.used_memory)} used, no limit set")
    share = server.used_memory / server.maxmemory
    detail = f"{size(server.used_memory)} of {size(server.maxmemory)} used"
    mend = "raise maxmemory, let workers catch up, or lower EMBEDQ_QUEUE_BYTES"
    if share >= 1:
        return Finding(Verdict.fail, "memory", f"{detail}: nothing can be queued", mend)
    if share > MEMORY_WARN_SHARE:
        return Finding(Verdict.warn, "memory", detail, mend)
    return Finding(Verdict.ok, "memory", detail)


def _clock(ahead: float | None) -> Finding:
    if ahead is None:
        return _untold("clock", "+time")
    if abs(ahead) < CLOCK_WARN_SECONDS:
        return Finding(Verdict.ok, "clock", "that of Redis agrees with the one here")
    detail = f"that of Redis is {duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
    verdict = Verdict.fail if abs(ahead) >= CLOCK_FAIL_SECONDS else Verdict.warn
    return Finding(verdict, "clock", detail, "set both clocks by NTP: jobs are due, and workers alive, by the clock")
