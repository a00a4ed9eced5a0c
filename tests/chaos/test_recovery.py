"""The recovery that the chaos test reports is the time that chunks of the dead waited, no less."""

from collections.abc import Mapping

import pytest

from chaos.recovery import Recovery

LEASE = 15.0
JOBS = {"a", "b"}


def killed_with(leases: Mapping[str, float]) -> Recovery:
    recovery = Recovery()
    recovery.killed(100.0, leases)
    return recovery


def test_a_chunk_that_is_taken_over_counts_from_the_kill() -> None:
    recovery = killed_with({"a": 12.0})
    recovery.look(106.0, {"a": 6.0}, JOBS)
    recovery.look(112.5, {}, JOBS)
    assert (recovery.longest, recovery.waiting) == (0.0, 100.0)
    recovery.look(113.0, {"a": LEASE}, JOBS)
    assert (recovery.longest, recovery.taken_over, recovery.waiting) == (13.0, 1, None)


def test_a_chunk_that_is_done_between_two_looks_counts_too() -> None:
    recovery = killed_with({"a": 12.0})
    recovery.look(112.1, {}, JOBS)
    recovery.look(117.0, {}, {"b"})
    assert (recovery.longest, recovery.taken_over) == (17.0, 1)


def test_the_longest_of_several_counts() -> None:
    recovery = killed_with({"a": 12.0, "b": 14.0})
    recovery.look(112.2, {"b": 1.8}, JOBS)
    recovery.look(112.4, {"b": 1.6, "a": LEASE}, JOBS)
    recovery.look(114.0, {"a": 13.4}, JOBS)
    recovery.look(123.0, {"a": LEASE, "b": LEASE}, JOBS)
    assert (recovery.longest, recovery.taken_over) == (23.0, 2)


@pytest.mark.parametrize(
    ("leases", "queued"),
    [
        ({"a": LEASE}, JOBS),  # renewed
        ({}, JOBS),  # given back
        ({}, {"b"}),  # done
    ],
)
def test_a_chunk_of_a_worker_that_lives_on_is_no_recovery(leases: Mapping[str, float], queued: set[str]) -> None:
    recovery = killed_with({"a": 12.0})
    recovery.look(103.0, leases, queued)
    assert (recovery.longest, recovery.taken_over, recovery.waiting) == (0.0, 0, None)


def test_a_second_kill_does_not_begin_the_time_of_the_first_anew() -> None:
    recovery = killed_with({"a": 12.0})
    recovery.killed(105.0, {"a": 7.0})
    recovery.look(112.1, {"a": LEASE}, JOBS)
    assert recovery.longest == pytest.approx(12.1)
