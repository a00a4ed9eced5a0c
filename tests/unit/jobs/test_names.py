"""Names in Redis, and the ids of runs and jobs."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_jobs import job_id, new_run_id, parse_job_id
from embedq_jobs.names import Names, lease_key, payload_key

moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.text(min_size=1), st.integers(0, 10**18 - 1))
def test_the_id_of_a_job_tells_its_run_and_its_number(run: str, number: int) -> None:
    assert parse_job_id(job_id(run, number)) == (run, number)


@pytest.mark.parametrize("job", ["", "x", ":", ":1", "run:", "run:-1", "run:1.5", "run:٣", "run: 1", "run:" + "9" * 19])
def test_an_id_that_is_not_ours_is_a_run_of_its_own_without_a_number(job: str) -> None:
    assert parse_job_id(job) == (job, -1)


@given(st.text())
def test_any_id_can_be_parsed_and_its_number_kept_by_the_database(job: str) -> None:
    run, number = parse_job_id(job)
    assert run in job
    assert -1 <= number < 2**63


@given(moments, moments)
def test_run_ids_sort_by_time(one: datetime, other: datetime) -> None:
    earlier, later = sorted([one.replace(microsecond=0), other.replace(microsecond=0)])
    assert new_run_id(earlier) < new_run_id(later + timedelta(seconds=1))


def test_a_run_id_is_its_moment_in_utc_and_something_of_its_own() -> None:
    berlin = datetime.fromisoformat("2027-01-01T00:59:59+01:00")
    assert new_run_id(berlin.astimezone(UTC)).startswith("20261231-235959-")
    assert len({new_run_id(berlin) for _ in range(50)}) == 50


def test_a_run_id_needs_no_quoting_anywhere_and_has_no_look_alikes() -> None:
    tail = "".join(new_run_id()[16:] for _ in range(200))
    assert tail.isalnum()
    assert tail.islower() or tail.isdigit() or tail == tail.lower()
    assert not set(tail) & set("01oliaeu")


@given(st.sampled_from(["m", "load:m", "x:chunks", "hash"]), st.sampled_from(["r", "m", "r:chunks"]))
def test_no_two_keys_of_one_prefix_are_the_same(model_id: str, run: str) -> None:
    names = Names("embedq")
    keys = [
        names.models,
        names.collections,
        names.runs,
        names.workers,
        names.load(model_id),
        names.run(run),
        names.chunks(run),
        names.partial(run),
        names.done(1),
        names.health("w"),
        payload_key(job_id(run, 0)),
        lease_key(job_id(run, 0)),
    ]
    assert len(set(keys)) == len(keys)


def test_two_prefixes_share_no_key() -> None:
    assert {Names("a").queue("m"), Names("a").load("m"), Names("a").models}.isdisjoint(
        {Names("b").queue("m"), Names("b").load("m"), Names("b").models}
    )
