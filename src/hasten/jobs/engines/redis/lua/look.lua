-- uses: taking
-- look: whether a claim would bring something.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {}
-- Returns {1 or 0, when the first delayed job is due, in ms, or false}.
local q = open(KEYS[1])
local ready = not is_blocked(q) and limit_of(q) == 0
  and call('EXISTS', q.base .. 'wait', q.base .. 'prioritized') > 0
local head = call('ZRANGE', q.base .. 'delayed', 0, 0, 'WITHSCORES')[2]
return { ready and 1 or 0, head and math.floor(tonumber(head) / 4096) or false }
