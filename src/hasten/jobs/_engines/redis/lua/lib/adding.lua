-- uses: places
-- One job more: its hash, its place, its events.
local function store(q, id, name, data, opts, timestamp, delay, priority, ...)
  call('HSET', q.base .. id, 'name', name, 'data', data, 'opts', opts, 'timestamp', timestamp,
    'delay', delay, 'priority', priority, ...)
  tell(q, 'added', 'jobId', id, 'name', name)
end

local function place(q, id, timestamp, delay, priority, front)
  if delay > 0 then
    delay_until(q, id, timestamp + delay)
  else
    make_ready(q, id, priority, front and priority == 0)
    tell_waiting(q, id)
  end
end
