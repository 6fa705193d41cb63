-- uses: deleting
-- obliterate: delete a queue, in several calls if needed.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {limit: how many jobs to delete in this call, at most}
-- Returns 1 if the script has to be called again, else 0.
local base, left = KEYS[1], request.limit
local STATES = { 'wait', 'paused', 'active', 'prioritized', 'delayed', 'waiting-children', 'completed', 'failed' }

-- Pause the queue, so that no job is claimed between the calls.
if call('TYPE', base .. 'meta').ok ~= 'hash' then
  call('DEL', base .. 'meta')
end
call('HSET', base .. 'meta', 'paused', 1)
for _, state in ipairs(STATES) do
  local key = base .. state
  local kind = call('TYPE', key).ok
  local is_list = kind == 'list'
  if not is_list and kind ~= 'zset' then
    call('UNLINK', key) -- missing, or not a list of jobs
  end
  while left > 0 do
    local id
    if is_list then
      id = call('RPOP', key)
    else
      id = call('ZPOPMIN', key)[1]
    end
    if not id then
      break
    end
    local fields = read_fields(base .. id, 'parentKey', 'deid')
    if fields[1] and string.sub(fields[1], 1, #base) ~= base then
      attempt(id, unlink, fields[1], base .. id)
    end
    if fields[2] then
      call('DEL', base .. 'de:' .. fields[2], base .. 'dn:' .. fields[2])
    end
    delete_keys(base .. id)
    call('DEL', base .. id .. ':lock')
    left = left - 1
  end
  if left == 0 then
    return 1
  end
end
for _, scheduler in ipairs(read('ZRANGE', base .. 'repeat', 0, left - 1)) do
  call('DEL', base .. 'repeat:' .. scheduler)
  call('ZREM', base .. 'repeat', scheduler)
  left = left - 1
end
if left == 0 then
  return 1
end
queues[base] = nil -- `close_all` must not write to the deleted queue
close_all()
for _, name in ipairs({
  'id', 'pc', 'meta', 'events', 'marker', 'stalled', 'stalled-check', 'limiter', 'repeat', 'metrics:completed',
  'metrics:failed', 'metrics:completed:data', 'metrics:failed:data', 'hasten:cancelled',
  'hasten:large', 'hasten:workers', 'hasten:worker-reports', 'hasten:schedules', 'hasten:paused',
}) do
  call('UNLINK', base .. name) -- frees the memory of many events in the background
end
return 0
