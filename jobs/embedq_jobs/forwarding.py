"""Handing a chunk on to another model's queue: its collection has got that model while the chunk was on its way.

The chunk stays what it is, run, number and job id, so ledger and counts stay right. Each script is one step: whoever
dies, and whenever, the chunk is in one queue or in the other.
"""

import time
from typing import Final

from arq.connections import ArqRedis
from arq.jobs import serialize_job

from embedq_core.errors import RunCancelled
from embedq_jobs.codec import EMBED_CHUNK, Chunk, dump_job, encode_chunk
from embedq_jobs.errors import translated
from embedq_jobs.loads import PUT_ON, TAKE_OFF
from embedq_jobs.names import Names, job_id, payload_key

# Where the run keeps to which model a chunk was handed on: its producer may not know, and send it again.
MOVED_FIELD: Final = "moved:"

# A chunk that is done, or that another worker has handed on already, is left as it is. It keeps its place in the line.
# An entry that is there though the chunk was handed elsewhere has come back into the queue (see below), and is none.
# ZREM comes first: when its memory is full, Redis refuses a script whose first write needs more of it.
_FORWARD: Final = (
    PUT_ON
    + TAKE_OFF
    + """
local payload, from, to, from_load, to_load, chunks, run, models, collections = unpack(KEYS)
local job, number, model, envelope, items, now, expires, field, collection = unpack(ARGV)
if redis.call('HEXISTS', chunks, number) == 1 then return 'DONE' end
-- Where there is no worker for the other model, nobody would take it out.
if redis.call('HEXISTS', run, 'cancelled') == 1 then return 'CANCELLED' end
local score = redis.call('ZSCORE', from, job)
redis.call('ZREM', from, job)
take_off(from_load, job)
if redis.call('ZSCORE', to, job) and redis.call('HGET', run, field) == model then return 'KNOWN' end
redis.call('SET', payload, envelope, 'PX', expires)
redis.call('ZADD', to, score or now, job)
put_on(to_load, job, #envelope, items)
redis.call('SADD', models, model)
redis.call('HSET', run, field, model)
redis.call('HSET', collections, collection, model)
return 'FORWARDED'
"""
)

# The entry of a job that was handed on may come back: a worker that had stalled puts off what it holds no more.
_RETRACT: Final = (
    TAKE_OFF
    + """
local queue, load, run = unpack(KEYS)
local job, model, field = unpack(ARGV)
if redis.call('HGET', run, field) ~= model then return 0 end
redis.call('ZREM', queue, job)
take_off(load, job)
return 1
"""
)


class Forwarding:
    """Moves chunks between the queues of models. Its methods raise QueueError."""

    def __init__(self, redis: ArqRedis, names: Names, where: str, expires_ms: int) -> None:
        self._names = names
        self._where = where
        self._expires_ms = expires_ms
        self._forward = redis.register_script(_FORWARD)
        self._retract = redis.register_script(_RETRACT)

    async def forward(self, chunk: Chunk, from_model: str) -> bool:
        """Take `chunk` out of the queue of `from_model`, and put it into that of the model that it names now.

        False where it is done: then nothing changes. Producers hear of the collection's new model from now on. Doing so
        twice is doing it once. Raises RunCancelled, and has changed nothing, where its run was cancelled.
        """
        names, job, now_ms = self._names, job_id(chunk.run, chunk.number), int(time.time() * 1000)
        envelope = serialize_job(EMBED_CHUNK, (encode_chunk(chunk),), {}, None, now_ms, serializer=dump_job)
        with translated(self._where):
            outcome = await self._forward(
                keys=[
                    payload_key(job),
                    names.queue(from_model),
                    names.queue(chunk.model_id),
                    names.load(from_model),
                    names.load(chunk.model_id),
                    names.chunks(chunk.run),
                    names.run(chunk.run),
                    names.models,
                    names.collections,
                ],
                args=[
                    job,
                    chunk.number,
                    chunk.model_id,
                    envelope,
                    len(chunk.items),
                    now_ms,
                    self._expires_ms,
                    f"{MOVED_FIELD}{chunk.number}",
                    chunk.collection,
                ],
            )
        if outcome == b"CANCELLED":
            raise RunCancelled(f"the run {chunk.run} was cancelled: {job} is not handed on")
        return bool(outcome != b"DONE")

    async def retract(self, chunk: Chunk, from_model: str) -> bool:
        """Remove what is left of `chunk` in the queue of `from_model`, where it was handed on to the model that it
        names. False where it was not: then nothing changes.
        """
        names, job = self._names, job_id(chunk.run, chunk.number)
        with translated(self._where):
            removed = await self._retract(
                keys=[names.queue(from_model), names.load(from_model), names.run(chunk.run)],
                args=[job, chunk.model_id, f"{MOVED_FIELD}{chunk.number}"],
            )
        return bool(removed)
