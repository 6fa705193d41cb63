-- uses: claiming
-- claim: move up to count ready jobs to active and lease them.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {queue, now, claim: see lib/claiming.lua}
-- Returns packed {jobs, next due or false, {}, cron jobs, errors, skipped ids}: see lib/claiming.lua, and `attempt` in
-- lib/queue.lua for the errors.
local q = open(KEYS[1])
begin_writing(q)
local records, next_due, crons, skipped = claim_jobs(q, request.claim, request.now)
update_marker(q)
close_all()
return cmsgpack.pack({ records, next_due, {}, crons, errors, skipped })
