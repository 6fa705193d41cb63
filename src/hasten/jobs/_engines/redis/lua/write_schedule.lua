-- uses: schedulers schedule_states deleting
-- write_schedule: store a scheduler, and replace its pending job if that has not started.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, id: of the scheduler, version: of the record that the client has read, is_pending: whether the pending
--         job had not started then, fields = {field, value, …}: the new record, declared, ended, paused, slot: of the
--         record if no job is added, runs = {{slot, delay, opts}, …}: the job to add; further ones are tried if a job for
--         the slot exists, name, data, priority, lifo}
-- Returns 1 if the scheduler was stored, 0 if the client has to read it again, 2 if jobs for all slots exist.
local q = open(KEYS[1])
local scheduler, now = request.id, request.now
local found = find_schedule(q, scheduler)
if version_of(found) ~= request.version then
  return 0
end
local UNSTARTED = { waiting = true, prioritized = true, delayed = true }
local pending = found and found[1] and 'repeat:' .. scheduler .. ':' .. found[1]
local is_pending = pending and exists(q, pending) and UNSTARTED[state_of(q, pending) or '']
  and not has_started(q, scheduler, found[1]) or false
if is_pending ~= request.is_pending then
  return 0
end
local chosen
for _, run in ipairs(request.runs) do
  local id = 'repeat:' .. scheduler .. ':' .. string.format('%.0f', run[1])
  if (is_pending and id == pending) or call('EXISTS', q.base .. id) == 0 then
    chosen = run
    break
  end
end
if not chosen and #request.runs > 0 then
  return 2
end

-- The first write: if the memory is full, Redis rejects it, and nothing has been changed.
local own = found and state_of_schedule(q, scheduler) or {} -- BullMQ removes its record only
own.held = nil
own.ended = request.ended or nil
own.declared = request.declared or nil
save_schedule(q, scheduler, own)
if is_pending then
  remove_pending(q, scheduler, found[1], UNSTARTED, delete_keys)
end
local record = q.base .. 'repeat:' .. scheduler
call('DEL', record)
if request.paused then
  call('HSET', q.base .. 'hasten:paused', scheduler, cjson.encode(request.fields))
  call('ZREM', q.base .. 'repeat', scheduler)
else
  call('HDEL', q.base .. 'hasten:paused', scheduler)
  call('HSET', record, unpack(request.fields))
  local slot = chosen and chosen[1] or request.slot
  call('ZADD', q.base .. 'repeat', string.format('%.0f', slot), scheduler)
end
if chosen then
  local id = 'repeat:' .. scheduler .. ':' .. string.format('%.0f', chosen[1])
  call('INCR', q.base .. 'id')
  store(q, id, request.name, request.data, chosen[3], now, chosen[2], request.priority, 'rjk', scheduler)
  add_to_state(q, id, now, chosen[2], request.priority, request.lifo)
end
close_all()
return 1
