-- uses: schedulers
-- add_next_run: add the next job of a scheduler with a cron pattern, whose due time the client has computed.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, id, scheduler, opts: those of the job that was claimed, due in ms}
local q = open(KEYS[1])
begin_writing(q)
schedule_next(q, request.id, request.scheduler, cjson.decode(request.opts), request.now, request.due)
close_all()
return 0
