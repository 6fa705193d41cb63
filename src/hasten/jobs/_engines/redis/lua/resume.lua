-- uses: queue
-- resume: end a pause. Jobs that BullMQ 5 has put aside in `paused` come back first, in as many calls as it takes.
-- KEYS  1 the beginning of the queue's keys
-- Returns 1 if there are more of those.
local MOVED_AT_ONCE = 1000
local q = open(KEYS[1])
begin_writing(q)
if call('EXISTS', q.base .. 'paused') == 1 then
  if call('EXISTS', q.base .. 'wait') == 0 then
    call('RENAME', q.base .. 'paused', q.base .. 'wait')
  else
    local put_aside = call('LPOP', q.base .. 'paused', MOVED_AT_ONCE)
    in_portions('RPUSH', q.base .. 'wait', put_aside)
    if call('EXISTS', q.base .. 'paused') == 1 then
      return 1
    end
  end
end
call('HDEL', q.base .. 'meta', 'paused')
q.paused = false
if call('EXISTS', q.base .. 'wait', q.base .. 'prioritized') > 0 then
  q.ready = true
else
  q.delayed = true
end
tell(q, 'resumed')
close_all()
return 0
