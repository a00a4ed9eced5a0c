"""Contents of many requests, cut into batches of exactly the model's size."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedq_worker.batcher import HIGH_FOR_ONE, LINGER_SECONDS, MAX_LINGER_SECONDS, Batcher, Request, Slice


def request(*contents: str) -> Request:
    return Request(contents)


def contents(batch: list[Slice]) -> list[str | bytes]:
    return [content for piece in batch for content in piece.contents]


def test_a_full_batch_goes_at_once() -> None:
    batcher = Batcher(2)
    batcher.add(request("a", "b", "c"), now=0)
    assert contents(batcher.next_batch(now=0)) == ["a", "b"]
    assert len(batcher) == 1


def test_a_batch_is_filled_across_requests() -> None:
    batcher = Batcher(4)
    first, second, third = request("a"), request("b", "c"), request("d", "e")
    for each in (first, second, third):
        batcher.add(each, now=0)
    assert batcher.next_batch(now=0) == [Slice(first, 0, 1), Slice(second, 0, 2), Slice(third, 0, 1)]
    assert third.taken == 1


def test_a_tail_waits_for_company_and_then_goes_short() -> None:
    batcher = Batcher(4)
    batcher.add(request("a"), now=10)
    assert batcher.deadline() == 10 + LINGER_SECONDS
    assert batcher.next_batch(now=10 + LINGER_SECONDS / 2) == []
    assert contents(batcher.next_batch(now=10 + LINGER_SECONDS)) == ["a"]
    assert batcher.deadline() is None


def test_company_makes_a_tail_wait_longer_but_not_for_ever() -> None:
    batcher = Batcher(1000)
    for moment in (0.0, 0.02, 0.04, 0.06, 0.08, 0.09):
        batcher.add(request("a"), now=moment)
        assert batcher.next_batch(now=moment) == []
    assert batcher.deadline() == MAX_LINGER_SECONDS
    assert len(batcher.next_batch(now=MAX_LINGER_SECONDS)) == 6


def test_a_tail_that_waited_while_the_model_was_busy_goes_as_soon_as_it_is_free() -> None:
    batcher = Batcher(2)
    batcher.add(request("a", "b", "c"), now=0)
    batcher.next_batch(now=0)
    assert contents(batcher.next_batch(now=5)) == ["c"]


def test_a_model_without_a_batch_size_gets_each_request_whole_and_at_once() -> None:
    batcher = Batcher(None)
    batcher.add(request("a", "b", "c"), now=0)
    batcher.add(request("d"), now=0)
    assert contents(batcher.next_batch(now=0)) == ["a", "b", "c"]
    assert contents(batcher.next_batch(now=0)) == ["d"]
    assert batcher.next_batch(now=99) == []


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_request_for_nothing_holds_nobody_up(batch_size: int | None) -> None:
    batcher = Batcher(batch_size)
    batcher.add(request(), now=0)
    assert batcher.deadline() is None
    batcher.add(request("a"), now=0)
    assert contents(batcher.next_batch(now=99)) == ["a"]


def test_a_request_that_nobody_wants_any_more_is_not_embedded() -> None:
    batcher = Batcher(2)
    unwanted = request("a", "b", "c")
    batcher.add(unwanted, now=0)
    batcher.add(request("d"), now=0)
    assert contents(batcher.next_batch(now=0)) == ["a", "b"]
    batcher.remove(unwanted)
    batcher.remove(unwanted)
    assert len(batcher) == 1
    assert contents(batcher.next_batch(now=99)) == ["d"]
    assert len(batcher) == 0


def test_clearing_returns_what_waited() -> None:
    batcher = Batcher(2)
    first, second = request("a", "b", "c"), request("d")
    batcher.add(first, now=0)
    batcher.add(second, now=0)
    batcher.next_batch(now=0)
    assert batcher.clear() == [first, second]
    assert len(batcher) == 0
    assert batcher.next_batch(now=99) == []


@dataclass
class Step:
    """Requests arrive, or time passes and batches are taken."""

    sizes: list[int]
    passes: float


steps = st.lists(
    st.builds(Step, st.lists(st.integers(0, 12), max_size=4), st.sampled_from([0.0, 0.001, 0.02, 0.06, 1.0])),
    max_size=12,
)


@given(st.none() | st.integers(1, 7), steps)
def test_nothing_is_lost_order_is_kept_and_only_a_tail_that_has_lingered_is_short(
    batch_size: int | None, history: list[Step]
) -> None:
    batcher, now, sent, received = Batcher(batch_size), 0.0, 0, list[str | bytes]()
    wholes = list[list[str]]()
    for step in history:
        for size in step.sizes:
            names = [f"{number:05}" for number in range(sent, sent + size)]
            sent += size
            batcher.add(Request(names), now)
            wholes += [names] if names else []
        now += step.passes
        while True:
            deadline = batcher.deadline()
            waiting = len(batcher)
            batch = batcher.next_batch(now)
            if not batch:
                assert not waiting or (batch_size is not None and waiting < batch_size)
                assert deadline is None or now < deadline
                break
            found = contents(batch)
            received += found
            assert len(batcher) == waiting - len(found) == sent - len(received)
            if batch_size is None:
                assert found == wholes.pop(0)
            else:
                tail = len(found) == waiting and deadline is not None and now >= deadline
                assert len(found) == batch_size or (tail and len(found) < batch_size)
    now += MAX_LINGER_SECONDS
    while batch := batcher.next_batch(now):
        received += contents(batch)
    assert received == [f"{number:05}" for number in range(sent)]


@given(st.integers(1, 7), st.lists(st.integers(1, 20), min_size=1), st.floats(0, 1e6))
def test_a_deadline_is_always_ahead_of_the_last_arrival_and_is_kept(size: int, sizes: list[int], now: float) -> None:
    batcher = Batcher(size)
    for each in sizes:
        batcher.add(Request(["x"] * each), now)
    while len(batcher):
        deadline = batcher.deadline()
        assert deadline is not None
        assert now <= deadline <= now + MAX_LINGER_SECONDS
        assert batcher.next_batch(deadline), "what waits is sent off at its deadline"
        now = deadline


def test_while_more_is_coming_a_tail_waits_longer_but_not_for_ever() -> None:
    batcher = Batcher(32)
    batcher.coming = True
    batcher.add(request(*"abcdefg"), 100.0)
    assert batcher.next_batch(100.4) == []
    batcher.add(request(*"hi"), 100.4)
    assert batcher.next_batch(100.85) == []
    assert sum(piece.stop - piece.start for piece in batcher.next_batch(101.0)) == 9
    batcher.add(request(*"abcdefg"), 200.0)
    batcher.coming = False
    assert batcher.next_batch(200.03)


# --- by weight


def test_a_batch_is_cut_where_it_would_weigh_too_much_and_does_not_wait_for_company() -> None:
    batcher = Batcher(10, len, 6)
    batcher.add(request("aaa", "bb"), now=0)
    assert batcher.next_batch(now=0) == []
    batcher.add(request("cc", "dddddddd", "e"), now=0)
    assert contents(batcher.next_batch(now=0)) == ["aaa", "bb"]
    assert contents(batcher.next_batch(now=0)) == ["cc"]
    assert contents(batcher.next_batch(now=0)) == ["dddddddd"], "one alone may weigh more"
    assert batcher.next_batch(now=0) == []
    assert contents(batcher.next_batch(now=99)) == ["e"]


def test_the_number_counts_where_the_weight_does_not_and_a_request_is_cut_where_there_is_no_number() -> None:
    batcher = Batcher(2, len, 100)
    batcher.add(request("a", "b", "c"), now=0)
    assert contents(batcher.next_batch(now=0)) == ["a", "b"]
    batcher = Batcher(None, len, 2)
    batcher.add(request("a", "b", "c"), now=0)
    batcher.add(request("d"), now=0)
    assert [contents(batcher.next_batch(now=0)) for _ in range(4)] == [["a", "b"], ["c"], ["d"], []]


@given(
    st.lists(st.lists(st.text("x", min_size=1, max_size=12), max_size=8), max_size=8),
    st.none() | st.integers(1, 6),
    st.integers(1, 20),
)
def test_whatever_the_weights_each_content_is_in_one_batch_in_order_and_none_weighs_too_much(
    requests: list[list[str]], batch_size: int | None, most: int
) -> None:
    batcher = Batcher(batch_size, len, most)
    for texts in requests:
        batcher.add(Request(texts), now=0)
    batches = list(iter(lambda: contents(batcher.next_batch(now=99)), []))
    assert [text for batch in batches for text in batch] == [text for texts in requests for text in texts]
    for batch in batches:
        assert len(batch) == 1 or sum(map(len, batch)) <= most
        assert batch_size is None or len(batch) <= batch_size
    assert len(batcher) == 0


# --- two priorities


def urgent(*contents: str) -> Request:
    return Request(contents, high=True)


def test_high_contents_make_the_next_batch_and_others_fill_what_they_leave() -> None:
    batcher = Batcher(4)
    batcher.add(request(*"abcdefgh"), now=0)
    batcher.add(urgent(*"XYZ"), now=0)
    assert contents(batcher.next_batch(now=0)) == [*"XYZa"], "at once, and full"
    assert contents(batcher.next_batch(now=0)) == [*"bcde"]


def test_a_high_tail_with_nothing_to_fill_it_waits_for_company_as_any_other() -> None:
    batcher = Batcher(4)
    batcher.add(urgent("X"), now=0)
    assert batcher.next_batch(now=0) == []
    assert contents(batcher.next_batch(now=LINGER_SECONDS)) == ["X"]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_while_high_contents_keep_coming_every_fourth_batch_is_of_the_others(batch_size: int) -> None:
    batcher = Batcher(batch_size)
    batcher.add(request(*["a"] * 1000), now=0)
    batcher.add(urgent(*["X"] * 1000), now=0)
    batches = [contents(batcher.next_batch(now=0)) for _ in range(12)]
    assert batches == ([["X"] * batch_size] * 3 + [["a"] * batch_size]) * 3


def test_a_few_others_get_their_turn_sooner_and_their_batch_is_filled() -> None:
    batcher = Batcher(6)
    batcher.add(request("a", "b"), now=0)
    batcher.add(urgent(*["X"] * 100), now=0)
    assert [contents(batcher.next_batch(now=0)) for _ in range(2)] == [["X"] * 6, ["a", "b", *"XXXX"]]


def test_without_a_batch_size_whole_requests_take_turns_by_what_is_in_them() -> None:
    batcher = Batcher(None)
    batcher.add(request("a", "b"), now=0)
    for _ in range(4):
        batcher.add(urgent(*"XXX"), now=0)
    assert [contents(batcher.next_batch(now=0)) for _ in range(3)] == [[*"XXX"], [*"XXX"], ["a", "b"]]


def test_others_that_were_not_there_are_owed_nothing() -> None:
    batcher = Batcher(2)
    batcher.add(urgent(*["X"] * 100), now=0)
    for _ in range(20):
        batcher.next_batch(now=0)
    batcher.add(request("a", "b"), now=0)
    assert contents(batcher.next_batch(now=0)) == ["X", "X"]


def test_a_high_batch_is_cut_by_its_weight_and_what_is_removed_waits_no_more() -> None:
    batcher = Batcher(10, len, 6)
    unwanted = urgent("XXX", "YYY", "ZZZ")
    batcher.add(request("aaa"), now=0)
    batcher.add(unwanted, now=0)
    assert contents(batcher.next_batch(now=0)) == ["XXX", "YYY"]
    batcher.remove(unwanted)
    assert len(batcher) == 1
    batcher.add(urgent("U"), now=0)
    assert [request.contents for request in batcher.clear()] == [("U",), ("aaa",)]
    assert len(batcher) == 0


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=20),
    st.none() | st.integers(1, 7),
    st.lists(st.integers(0, 20), max_size=30),
)
def test_whatever_comes_each_priority_keeps_its_order_and_neither_starves(
    requests: list[tuple[int, bool]], batch_size: int | None, arrivals: list[int]
) -> None:
    batcher, sent = Batcher(batch_size), {True: 0, False: 0}
    received: dict[bool, list[str | bytes]] = {True: [], False: []}
    passed, most = 0, max([batch_size or 0, *(size for size, _ in requests)])

    def take() -> bool:
        nonlocal passed
        waited = sent[False] > len(received[False])
        batch = batcher.next_batch(now=99)
        for piece in batch:
            received[piece.request.high] += piece.contents
        normal = any(not piece.request.high for piece in batch)
        passed = 0 if normal or not waited else passed + sum(piece.stop - piece.start for piece in batch)
        assert passed <= HIGH_FOR_ONE * most + most, "others wait for no more than is gone ahead of them"
        if batch_size is not None and batch:
            left = sum(sent.values()) - sum(map(len, received.values()))
            assert sum(piece.stop - piece.start for piece in batch) == batch_size or not left, (
                "full while there is more"
            )
        return bool(batch)

    for number, (size, high) in enumerate(requests):
        names = [f"{place:05}" for place in range(sent[high], sent[high] + size)]
        sent[high] += size
        batcher.add(Request(names, high=high), now=0)
        for _ in range(arrivals[number] % 3 if number < len(arrivals) else 0):
            take()
    while take():
        pass
    assert received == {high: [f"{place:05}" for place in range(count)] for high, count in sent.items()}
    assert len(batcher) == 0
