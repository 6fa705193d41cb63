-- uses: claiming
-- has_work: report whether a claim would return jobs now, and when a later claim would.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {}
-- Returns {1 if jobs can be claimed now, else 0; when the first delayed job is due, in ms, or false; for how many ms
-- the queue's rate limit blocks claims; the server's time in ms}.
local q = open(KEYS[1])
local limited = rate_limit_of(q)
local ready = limited == 0 and not is_blocked(q)
  and call('EXISTS', q.base .. 'wait', q.base .. 'prioritized') > 0
local head = call('ZRANGE', q.base .. 'delayed', 0, 0, 'WITHSCORES')[2]
return { ready and 1 or 0, head and due_of(head) or false, limited, server_time() }
