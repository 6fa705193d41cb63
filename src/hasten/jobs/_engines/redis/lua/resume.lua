-- uses: queue
-- resume: end a pause. Jobs that BullMQ 5 has moved to the list `paused` are moved back first, in several calls if
-- needed.
-- KEYS  1 the beginning of the queue's keys
-- Returns 1 if the script has to be called again because jobs are left in that list, else 0.
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
emit(q, 'resumed')
close_all()
return 0
