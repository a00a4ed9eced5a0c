"""How `status` names a worker."""

from embedq.reporting import _worker


def test_a_worker_is_shown_with_the_bytes_it_has_in_hand_and_may_have() -> None:
    report = {"host": "here", "pid": 7, "in_hand_bytes": 1024, "in_hand_bytes_limit": 64 * 1024 * 1024}
    assert _worker(report) == "here:7 (in hand 1.0 KiB of 64 MiB)"


def test_a_worker_of_an_earlier_version_or_with_nothing_to_serve_is_shown_by_its_place() -> None:
    assert _worker({"host": "here", "pid": 7}) == "here:7"
    assert _worker({"host": "here", "pid": 7, "in_hand_bytes": 0, "in_hand_bytes_limit": 0}) == "here:7"
