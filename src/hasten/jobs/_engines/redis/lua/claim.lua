-- uses: taking
-- claim: move up to count ready jobs to active and lease them.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {queue, now, wish: see taking.lua}
-- Returns packed {jobs, next due or false, {}, {}, crons, troubles}, see taking.lua.
local q = open(KEYS[1])
begin_writing(q)
local records, next_due, crons = take(q, request.wish, request.now)
pass_marker_on(q)
close_all()
return cmsgpack.pack({ records, next_due, {}, {}, crons, troubles })
