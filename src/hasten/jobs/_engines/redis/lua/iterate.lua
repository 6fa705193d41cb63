-- uses: schedule
-- iterate: add the next job of a scheduler whose cron pattern the client has worked out.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, id, scheduler, opts: those of the job that was taken, due in ms}
local q = open(KEYS[1])
begin_writing(q)
schedule_next(q, request.id, request.scheduler, cjson.decode(request.opts), request.now, request.due)
close_all()
return 0
