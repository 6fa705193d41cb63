-- uses: queue
-- resume: end a pause. Jobs that BullMQ 5 has put aside in `paused` come back.
-- KEYS  1 the beginning of the queue's keys
local q = open(KEYS[1])
begin_writing(q)
call('HDEL', q.base .. 'meta', 'paused')
q.paused = false
if call('EXISTS', q.base .. 'paused') == 1 then
  if call('EXISTS', q.base .. 'wait') == 0 then
    call('RENAME', q.base .. 'paused', q.base .. 'wait')
  else
    local put_aside = call('LRANGE', q.base .. 'paused', 0, -1)
    in_portions('RPUSH', q.base .. 'wait', put_aside)
    call('DEL', q.base .. 'paused')
  end
end
if call('EXISTS', q.base .. 'wait', q.base .. 'prioritized') > 0 then
  q.ready = true
else
  q.delayed = true
end
tell(q, 'resumed')
close_all()
return 0
