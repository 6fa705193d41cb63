-- uses: deduplication
-- add: add jobs to one queue.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, count, idempotency or nil, groups = {group, …}}
--         A group is {name, opts, delay in ms, priority, lifo, {data, …}, {id, …} or false, deduplication or nil}:
--         consecutive jobs that differ only in data and id. deduplication: see `take_id_or_find_owner`.
--         idempotency is {key, ms}: the reply is stored for this long. A second call with the same key adds nothing and
--         returns the same reply. Of existing jobs only the ids are stored, because the jobs may be large.
-- Returns packed {first number, {{n, id}, …}, {{id, state, due in ms or false, {field, value, …}}, …}, cursor}
--         The id of a job that was added without an id is the first number plus its index in the call, from 0.
--         The first list has the jobs that were not added because they are duplicates: n is the place of the job in
--         the call, from 1, and id is that of the existing job. The second list has the existing jobs, each once. A job
--         without fields was deleted, but the time of its deduplication id has not passed.
--         The cursor is the id of the first event of this call.
local q = open(KEYS[1])
local now = request.now
local reply_key = request.idempotency and q.base .. 'hasten:added:' .. request.idempotency[1]

-- Packs the reply. found is {{n, id of an existing job}, …}.
local function pack_answer(first, found, cursor)
  local existing, is_packed = {}, {}
  for _, each in ipairs(found) do
    local id = each[2]
    if not is_packed[id] then
      is_packed[id] = true
      local state, due = state_of(q, id)
      local fields = exists(q, id) and call('HGETALL', q.base .. id) or {}
      existing[#existing + 1] = { id, state or 'waiting', due or false, fields }
    end
  end
  return cmsgpack.pack({ first, found, existing, cursor })
end

local added = reply_key and call('GET', reply_key)
if added then
  return pack_answer(unpack(cmsgpack.unpack(added)))
end

-- The counter advances for each job, also for jobs with an id of their own, as in BullMQ. This is the first write: if
-- the memory is full, Redis rejects it, and nothing has been added.
local number = call('INCRBY', q.base .. 'id', request.count) - request.count
local first, found, at = number + 1, {}, 0
local has_deduplication = false

for _, group in ipairs(request.groups) do
  local name, opts, delay, priority, lifo, datas, ids, deduplication = unpack(group, 1, 8)
  has_deduplication = has_deduplication or deduplication
  local plain = delay == 0 and priority == 0
  local waiting = {}
  for index, data in ipairs(datas) do
    at, number = at + 1, number + 1
    local id = ids and ids[index] or string.format('%.0f', number)
    local owner = deduplication and take_id_or_find_owner(q, id, deduplication, name, data, opts, now)
    if owner then
      found[#found + 1] = { at, owner }
    elseif ids and call('EXISTS', q.base .. id) == 1 then
      found[#found + 1] = { at, id }
      emit(q, 'duplicated', 'jobId', id)
    else
      if deduplication then
        store(q, id, name, data, opts, now, delay, priority, 'deid', deduplication.id)
      else
        store(q, id, name, data, opts, now, delay, priority)
      end
      if plain then
        waiting[#waiting + 1] = id
        emit_waiting(q, id)
      else
        add_to_state(q, id, now, delay, priority, lifo)
      end
    end
  end
  if #waiting > 0 then
    in_portions(lifo and 'RPUSH' or 'LPUSH', q.base .. 'wait', waiting)
    q.ready = true
  end
end

close_all()
-- If no job was added because their ids exist, a second call adds none either, and the reply need not be stored.
if reply_key and (#found < request.count or has_deduplication) then
  call('SET', reply_key, cmsgpack.pack({ first, found, q.first_event }), 'PX', request.idempotency[2])
end
return pack_answer(first, found, q.first_event)
