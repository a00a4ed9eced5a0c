"""The load of a model's queue: what each job weighs that is not done, `bytes,items`, and the totals.

Functions in Lua, for the scripts that change a queue: its load changes in the same step.
"""

from typing import Final

PUT_ON: Final = """
local function put_on(load, job, bytes, items)
    redis.call('HSET', load, job, bytes .. ',' .. items)
    redis.call('HINCRBY', load, 'bytes', bytes)
    redis.call('HINCRBY', load, 'items', items)
end
"""

# Gives the items that the job had; nil where the load knows nothing of it.
# HDEL comes first: when its memory is full, Redis refuses a script whose first write needs more of it.
TAKE_OFF: Final = """
local function take_off(load, job)
    local bytes, items = string.match(redis.call('HGET', load, job) or '', '^(%d+),(%d+)$')
    if bytes then
        redis.call('HDEL', load, job)
        redis.call('HINCRBY', load, 'bytes', -bytes)
        redis.call('HINCRBY', load, 'items', -items)
    end
    return items
end
"""
