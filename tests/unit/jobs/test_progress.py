"""What follows from the ledger of runs."""

from dataclasses import replace

import pytest

from embedq_core.counts import Counts
from embedq_jobs import Run, RunSummary, measured, progress_of

RUN = Run("20261231-235959-x7kqb", "pets", "recording", "pets.csv", 1000.0, batch_size=32)
HALF = RunSummary(
    run=RUN,
    items=1000,
    bytes=9,
    chunks=10,
    chunks_done=5,
    skipped=0,
    duplicates=0,
    closed=True,
    outcome="sent",
    beat=1000.0,
    finished=None,
    counts=Counts(embedded=320, reused=180, calls=10, inputs=320),
    began=1100.0,
)
DONE = replace(HALF, chunks_done=10, finished=1150.0, counts=Counts(embedded=1000, calls=40, inputs=1000))


def test_speed_and_time_left_are_reckoned_from_when_a_worker_took_it_in_hand() -> None:
    found = progress_of(HALF, 1150.0)
    assert (found.share, found.items_per_second, found.seconds_left, found.batch_fill) == (0.5, 10, 50, 1)


def test_a_run_of_an_earlier_version_is_reckoned_from_its_start() -> None:
    assert progress_of(replace(HALF, began=None), 1100.0).items_per_second == 5


def test_a_run_of_which_items_are_done_is_in_progress_before_its_first_chunk_is() -> None:
    assert replace(HALF, chunks_done=0).state == "in_progress"
    assert replace(HALF, chunks_done=0, counts=Counts()).state == "queued"


def test_nobody_can_tell_the_end_of_what_is_still_being_sent() -> None:
    sending = replace(HALF, closed=False, outcome="", beat=2**40)
    assert progress_of(sending, 1150.0).seconds_left is None
    interrupted = replace(sending, outcome="interrupted")
    assert progress_of(interrupted, 1150.0).seconds_left == 50


def test_a_run_that_is_over_has_no_time_left_and_keeps_its_speed() -> None:
    assert progress_of(DONE, 9999.0) == progress_of(DONE, 99999.0)
    assert progress_of(DONE, 9999.0).seconds_left is None
    assert progress_of(DONE, 9999.0).items_per_second == 20
    assert progress_of(DONE, 9999.0).batch_fill == pytest.approx(1000 / (40 * 32))


def test_what_nobody_can_tell_is_none() -> None:
    empty = replace(HALF, items=0, counts=Counts(), chunks=0, chunks_done=0, closed=False, beat=2**40)
    found = progress_of(empty, 1150.0)
    assert (found.share, found.items_per_second, found.seconds_left, found.batch_fill) == (None, 0, None, None)
    unknown = replace(HALF, run=replace(RUN, batch_size=None))
    assert progress_of(unknown, 1150.0).batch_fill is None


def test_batches_that_others_have_paid_for_make_none_fuller_than_full() -> None:
    assert progress_of(replace(HALF, counts=Counts(embedded=99, calls=1, inputs=99)), 1150.0).batch_fill == 1


def test_the_speed_of_a_model_is_measured_where_it_did_most_of_the_work() -> None:
    mostly_unchanged = replace(DONE, counts=Counts(unchanged=999_999, embedded=1, inputs=1, calls=1))
    found = measured([DONE, mostly_unchanged, HALF])
    assert found is not None
    assert (found.inputs, found.runs, found.seconds, found.inputs_per_second) == (1000, 1, 50, 20)
    assert measured([mostly_unchanged, HALF]) is None
    assert measured([]) is None


def test_time_in_which_several_runs_shared_the_model_counts_once() -> None:
    overlapping = replace(DONE, began=1140.0, finished=1160.0)
    within = replace(DONE, began=1110.0, finished=1120.0)
    apart = replace(DONE, began=2000.0, finished=2040.0)
    found = measured([apart, overlapping, DONE, within])
    assert found is not None
    assert (found.inputs, found.runs, found.seconds) == (4000, 4, 100)
