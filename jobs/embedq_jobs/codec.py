"""Chunks as bytes: msgpack with a version number. Never pickle, neither written nor accepted."""

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from embedq_core.errors import ChunkUndecodable
from embedq_core.items import Item
from embedq_core.text import shown

VERSION: Final = 1

# Names of the functions that arq calls in a worker.
EMBED_CHUNK: Final = "embed_chunk"
BURY_CHUNK: Final = "bury_chunk"

# What a payload may weigh before anything tries to decode it. Redis itself takes no more than 512 MiB.
MAX_PAYLOAD_BYTES: Final = 256 * 1024 * 1024

# The number of a chunk, as SQLite and Lua can keep it.
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
# Milliseconds since the epoch that Python can show as a date.
_Moment: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**47)]


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Some items of one collection, on their way to a worker: what one arq job carries.

    `store` says whether contents are kept beside their vectors. `after` names chunks of the same run that
    hold earlier versions of some of these items: they must be done before. With `mends`, the items are what is stored
    without a hash: where something else is stored by then, that is newer.
    """

    run: str
    number: _Number
    collection: str
    model_id: str
    store: bool
    after: list[_Number]
    items: list[Item]
    mends: bool = False


class Payload(bytes):
    """Bytes that don't show what is in them: arq writes the arguments of a job into its log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self):,} bytes>"


class _Envelope(msgspec.Struct):
    """arq's job, as its `serialize_job` lays it out."""

    f: str
    a: list[Any]
    k: dict[str, Any]
    et: _Moment


_encoder = msgspec.msgpack.Encoder()
_jobs = msgspec.msgpack.Encoder(enc_hook=repr)
_chunks = msgspec.msgpack.Decoder(tuple[int, Chunk])
_versions = msgspec.msgpack.Decoder(list[Any])
_envelopes = msgspec.msgpack.Decoder(_Envelope)


def encode_chunk(chunk: Chunk) -> bytes:
    """`chunk` as bytes."""
    return _encoder.encode((VERSION, chunk))


def decode_chunk(payload: object) -> Chunk:
    """The chunk that `payload` holds. Raises ChunkUndecodable for anything else."""
    if not isinstance(payload, bytes):
        raise ChunkUndecodable(f"a chunk must be bytes, not {type(payload).__name__}")
    try:
        version, chunk = _chunks.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ChunkUndecodable(_why(payload, error)) from error
    if version != VERSION:
        raise ChunkUndecodable(_why(payload, ValueError(f"unknown version {version}")))
    for item in chunk.items:
        if not isinstance(item.content, str | bytes):
            raise ChunkUndecodable(f"the chunk is damaged: the content of {item.id!r} is neither text nor bytes")
    return chunk


def _why(payload: bytes, error: Exception) -> str:
    try:
        version = _versions.decode(payload)[0]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
        return f"the chunk is no msgpack of ours: {error}"
    if version != VERSION:
        return f"the chunk has version {version!r}, this embedq knows {VERSION}: upgrade the workers"
    return f"the chunk is damaged: {error}"


def dump_job(job: dict[str, Any]) -> bytes:
    """Arq's `job_serializer`. It never raises: of an error that is a job's result, the repr is written."""
    return _jobs.encode(job)


def load_job(raw: bytes) -> dict[str, Any]:
    """Arq's `job_deserializer`. It never raises, since arq drops a job whose payload does: what it can't
    read, or names a function that is not ours, or calls ours with other arguments than `Queue.put` does, is
    handed to the function that buries chunks, bytes and all.
    """
    problem = f"the job has {len(raw):,} bytes, more than {MAX_PAYLOAD_BYTES:,}"
    if len(raw) <= MAX_PAYLOAD_BYTES:
        try:
            envelope = _envelopes.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problem = f"the job is no msgpack of ours: {error}"
        else:
            match envelope.a:
                case [bytes(payload)] if envelope.f == EMBED_CHUNK and not envelope.k:
                    return _job(EMBED_CHUNK, [Payload(payload)], envelope.et)
            problem = f"the job names an unknown function {shown(envelope.f[:80])!r}"
            if envelope.f == EMBED_CHUNK:
                problem = "the job has other arguments than the bytes of a chunk"
    return _job(BURY_CHUNK, [Payload(raw), problem], 0)


def _job(function: str, arguments: list[Any], enqueued_ms: int) -> dict[str, Any]:
    """A job as arq wants it. How often it was tried (`t`) is for the worker to know, not for the payload."""
    return {"t": None, "f": function, "a": arguments, "k": {}, "et": enqueued_ms}
