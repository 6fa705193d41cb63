-- uses: workers
-- report_worker: store what a running worker does, and delete workers that have died.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id, info, lifetime in ms}
-- Returns 1 if the queue is paused, else 0.
local DELETED_AT_ONCE = 100
local q = open(KEYS[1])
begin_writing(q)
local now = server_time()
forget_workers(call('ZRANGEBYSCORE', WORKERS, '-inf', now, 'LIMIT', 0, DELETED_AT_ONCE))
call('ZADD', WORKERS, now + request.lifetime, request.id)
call('HSET', REPORTS, request.id, string.format('%.0f ', request.lifetime) .. request.info)
for _, key in ipairs({ WORKERS, REPORTS }) do
  if call('PTTL', key) < request.lifetime then
    call('PEXPIRE', key, request.lifetime)
  end
end
return q.paused and 1 or 0
