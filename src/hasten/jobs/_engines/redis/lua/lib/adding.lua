-- uses: states
-- Storing a new job.

-- Writes the hash of a new job, and emits "added". The variable arguments are further fields and values of the hash.
local function store(q, id, name, data, opts, timestamp, delay, priority, ...)
  call('HSET', q.base .. id, 'name', name, 'data', data, 'opts', opts, 'timestamp', timestamp,
    'delay', delay, 'priority', priority, ...)
  emit(q, 'added', 'jobId', id, 'name', name)
end

-- Puts a new job into `delayed`, or makes it ready. front: in front of the waiting jobs (lifo).
local function add_to_state(q, id, timestamp, delay, priority, front)
  if delay > 0 then
    delay_until(q, id, timestamp + delay)
  else
    make_ready(q, id, priority, front and priority == 0)
    emit_waiting(q, id)
  end
end
