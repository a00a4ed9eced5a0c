"""Chunks as bytes: what goes in comes out, and nothing else is accepted."""

import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from arq.jobs import deserialize_job_raw, serialize_job
from arq.utils import args_to_string, ms_to_datetime
from hypothesis import given, settings
from hypothesis import strategies as st

from embedq_core.errors import ChunkUndecodable
from embedq_core.items import Item
from embedq_jobs import Chunk, decode_chunk, encode_chunk
from embedq_jobs.codec import BURY_CHUNK, EMBED_CHUNK, MAX_PAYLOAD_BYTES, Payload, dump_job, load_job
from support.chunks import chunk, items

texts = st.text(st.characters(exclude_categories=["Cs"]))
any_items = st.builds(Item, texts, texts | st.binary(), st.none() | texts)
numbers = st.integers(0, 2**53 - 1)
chunks = st.builds(Chunk, texts, numbers, texts, texts, st.booleans(), st.lists(numbers), st.lists(any_items))


def envelope(*arguments: object, function: object = EMBED_CHUNK, **changes: object) -> bytes:
    job = {"t": None, "f": function, "a": arguments, "k": {}, "et": 1_700_000_000_000} | changes
    return msgspec.msgpack.encode(job)


class Exploding:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


# --- chunks


@given(chunks)
def test_a_chunk_comes_out_as_it_went_in(original: Chunk) -> None:
    assert decode_chunk(encode_chunk(original)) == original


def test_text_and_bytes_that_spell_it_stay_apart() -> None:
    original = chunk([Item("a", "cat"), Item("b", b"cat")])
    assert [item.content for item in decode_chunk(encode_chunk(original)).items] == ["cat", b"cat"]


@given(st.binary())
def test_random_bytes_are_no_chunk_and_raise_nothing_else(noise: bytes) -> None:
    with pytest.raises(ChunkUndecodable):
        decode_chunk(noise)


@given(chunks, st.data())
def test_a_damaged_chunk_is_decoded_or_refused_and_raises_nothing_else(original: Chunk, data: st.DataObject) -> None:
    payload = bytearray(encode_chunk(original))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_chunk(bytes(payload))
    except ChunkUndecodable:
        return
    assert all(isinstance(item.content, str | bytes) for item in decoded.items)


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Something valid with bits flipped, cut off, a part doubled, or a part of another put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        start, stop = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        match draw(st.sampled_from(["flip", "cut", "double", "splice", "length"])):
            case "flip":
                data[start % len(data)] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start:stop]
            case "double":
                data[start:start] = data[start:stop]
            case "splice":
                data[start:stop] = draw(whole)[start:]
            case "length":  # heads that promise up to 4 GiB
                data[start:start] = draw(st.sampled_from([b"\xc6", b"\xdb", b"\xdd", b"\xdf"])) + b"\xff" * 4
    return bytes(data)


@given(mutated(chunks.map(encode_chunk)))
@settings(max_examples=300)
def test_a_mutated_chunk_is_decoded_whole_or_refused_and_raises_nothing_else(payload: bytes) -> None:
    try:
        decoded = decode_chunk(payload)
    except ChunkUndecodable:
        return
    assert decode_chunk(encode_chunk(decoded)) == decoded


@given(mutated(chunks.map(lambda each: envelope(encode_chunk(each)))))
@settings(max_examples=300)
def test_a_mutated_job_is_run_or_buried_and_nothing_is_dropped(raw: bytes) -> None:
    job = load_job(raw)
    assert job["f"] in (EMBED_CHUNK, BURY_CHUNK)
    if job["f"] == BURY_CHUNK:
        assert job["a"][0] == raw


@pytest.mark.parametrize("head", [b"\xc6", b"\xdb", b"\xdd", b"\xdf"])
@pytest.mark.parametrize(
    "wrap", [lambda head: head, lambda head: b"\x92\x01" + head, lambda head: b"\x92\x01\x97\xa1r" + head]
)
def test_a_length_that_is_promised_and_not_there_takes_no_memory(head: bytes, wrap: Callable[[bytes], bytes]) -> None:
    payload = wrap(head + b"\xff\xff\xff\xff") + b"x" * 20
    tracemalloc.start()
    try:
        with pytest.raises(ChunkUndecodable):
            decode_chunk(payload)
        assert load_job(payload)["f"] == BURY_CHUNK
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_a_chunk_of_another_version_is_refused_and_says_which(version: object) -> None:
    with pytest.raises(ChunkUndecodable, match=f"version {version!r}.*upgrade the workers"):
        decode_chunk(msgspec.msgpack.encode((version, chunk(items(1)))))


def test_a_later_version_may_look_entirely_different() -> None:
    with pytest.raises(ChunkUndecodable, match="version 2"):
        decode_chunk(msgspec.msgpack.encode([2, {"everything": "else"}, "and more"]))


@pytest.mark.parametrize("content", [None, 7, ["a"], {"a": 1}, 1.5])
def test_content_that_is_neither_text_nor_bytes_is_refused_by_the_id_of_its_item(content: object) -> None:
    payload = msgspec.msgpack.encode((1, ("r", 0, "c", "m", True, [], [("spot", content, None)])))
    with pytest.raises(ChunkUndecodable, match="'spot' is neither text nor bytes"):
        decode_chunk(payload)


@pytest.mark.parametrize("number", [-1, 2**53, 2**63])
def test_a_number_that_the_database_could_not_keep_is_refused(number: int) -> None:
    with pytest.raises(ChunkUndecodable, match="damaged"):
        decode_chunk(msgspec.msgpack.encode((1, ("r", number, "c", "m", True, [], []))))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused_and_never_loaded(protocol: int) -> None:
    payload = pickle.dumps(Exploding(), protocol)
    with pytest.raises(ChunkUndecodable):
        decode_chunk(payload)
    assert load_job(payload)["f"] == BURY_CHUNK


@pytest.mark.parametrize("payload", ["text", None, 5, [b"bytes"]])
def test_what_is_not_bytes_is_no_chunk(payload: object) -> None:
    with pytest.raises(ChunkUndecodable, match=f"not {type(payload).__name__}"):
        decode_chunk(payload)


def test_nothing_in_a_payload_is_deep_enough_to_end_the_process() -> None:
    with pytest.raises(ChunkUndecodable):
        decode_chunk(b"\x91" * 1_000_000)


# --- jobs, as arq writes and reads them


def test_arq_reads_the_job_that_arq_wrote() -> None:
    payload = encode_chunk(chunk(items(3)))
    raw = serialize_job(EMBED_CHUNK, (payload,), {}, None, 1_700_000_000_000, serializer=dump_job)
    read: tuple[object, ...] = deserialize_job_raw(raw, deserializer=load_job)
    assert read == (EMBED_CHUNK, [payload], {}, None, 1_700_000_000_000)


def test_arq_s_log_line_shows_no_content() -> None:
    job = load_job(envelope(encode_chunk(chunk([Item("id", "the secret content")]))))
    assert args_to_string(job["a"], job["k"]) == f"<{len(job['a'][0])} bytes>"


def test_a_payload_shows_its_size_and_no_content() -> None:
    assert repr(Payload(b"secret" * 1000)) == f"{[Payload(b'secret' * 1000)]}"[1:-1] == "<6,000 bytes>"


@given(st.binary() | st.dictionaries(st.text(), st.integers(-(2**63), 2**64 - 1)).map(msgspec.msgpack.encode))
def test_what_is_no_job_is_buried_bytes_and_all(noise: bytes) -> None:
    job = load_job(noise)
    assert job["f"] == BURY_CHUNK
    assert job["a"][0] == noise
    assert job["k"] == {}


envelopes = st.fixed_dictionaries(
    {},
    optional={
        "f": st.sampled_from([EMBED_CHUNK, BURY_CHUNK, "other", "\x1b[2J", ""]) | st.integers(0, 9) | st.none(),
        "a": st.lists(st.binary() | st.text() | st.integers(-(2**63), 2**64 - 1), max_size=3) | st.none(),
        "k": st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
        "et": st.integers(-(2**63), 2**64 - 1) | st.floats(),
        "t": st.integers(-(2**63), 2**64 - 1) | st.none(),
    },
)


@given(envelopes)
def test_whatever_a_job_says_arq_can_run_it_and_drop_nothing(value: dict[str, Any]) -> None:
    raw = msgspec.msgpack.encode(value)
    function, arguments, keywords, _, moment = deserialize_job_raw(raw, deserializer=load_job)
    assert load_job(raw)["t"] is None, "arq drops jobs that claim too many tries"
    ms_to_datetime(moment)
    assert keywords == {}
    match function:
        case "embed_chunk":
            assert [type(argument) for argument in arguments] == [Payload]
        case "bury_chunk":
            assert arguments[0] == raw
            assert isinstance(arguments[1], str)
            assert "\x1b" not in arguments[1]
        case _:
            pytest.fail(f"arq knows no function {function!r}, and would drop the job")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (envelope(b"x", function="drop_tables"), "unknown function 'drop_tables'"),
        (envelope(b"x", "y", function=BURY_CHUNK), "unknown function 'bury_chunk'"),
        (envelope(), "other arguments"),
        (envelope(b"x", b"y"), "other arguments"),
        (envelope("text"), "other arguments"),
        (envelope(b"x", k={"y": 1}), "other arguments"),
        (envelope(b"x", et=2**62), "no msgpack of ours"),
        (b"", "no msgpack of ours"),
    ],
)
def test_a_job_that_is_buried_says_why(raw: bytes, problem: str) -> None:
    job = load_job(raw)
    assert job["f"] == BURY_CHUNK
    assert job["a"][0] == raw
    assert problem in job["a"][1]


def test_a_job_too_large_to_look_at_is_buried_unread() -> None:
    class Claims(bytes):
        def __len__(self) -> int:
            return MAX_PAYLOAD_BYTES + 1

    assert "268,435,457 bytes, more than" in load_job(Claims(envelope(b"x")))["a"][1]


def test_a_result_that_can_t_be_written_is_written_as_its_repr() -> None:
    assert msgspec.msgpack.decode(dump_job({"r": ValueError("no")})) == {"r": "ValueError('no')"}


def test_a_chunk_of_the_form_before_mending_is_read_as_one_that_mends_nothing() -> None:
    now = chunk(items(2))
    version, fields = msgspec.msgpack.decode(encode_chunk(now))
    assert fields.pop() is False
    assert decode_chunk(msgspec.msgpack.encode((version, fields))) == now
