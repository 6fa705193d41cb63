-- uses: flow_adding
-- add_flow: add jobs that are parents and children of each other, to any queues.
-- KEYS  1 the beginning of the keys of the first job's queue
-- ARGV  1 {now, parents = {the key of a parent that exists already, …}, groups = {group, …}, orders: see
--         lib/flow_adding.lua, idempotency or nil}
--         idempotency is {key, ms}: the reply is stored for this long. A second call with the same key adds nothing and
--         returns the same reply.
-- Returns packed {{the beginning of the keys of a queue = its cursor, …}}, or packed {false, the beginning of the keys of
-- a queue, id} if a job with this id exists, or packed {false, the key of a parent, its state or false} if this parent
-- does not exist or has finished; then nothing was added. A cursor is the id of the first event of this call.
local q = open(KEYS[1])
local now = request.now
local reply_key = request.idempotency and q.base .. 'hasten:added:' .. request.idempotency[1]

local stored = reply_key and call('GET', reply_key)
if stored then
  return stored
end
local taken = find_in_groups(request.groups, function(job_key, _, base, id)
  if call('EXISTS', job_key) == 1 then
    return { false, base, id }
  end
end)
if taken then
  return cmsgpack.pack(taken)
end

for _, parent_key in ipairs(request.parents) do
  local base, id = split(parent_key)
  if call('EXISTS', parent_key) == 0 then
    return cmsgpack.pack({ false, parent_key, false })
  end
  for _, state in ipairs({ 'completed', 'failed' }) do
    if call('ZSCORE', base .. state, id) then
      return cmsgpack.pack({ false, parent_key, state })
    end
  end
end

begin_writing(q)
add_groups(request.groups, {}, now)
store_orders(request.orders, {})
close_all()
local cursors = {}
for base, queue in pairs(queues) do
  cursors[base] = queue.first_event
end
local reply = cmsgpack.pack({ cursors })
if reply_key then
  call('SET', reply_key, reply, 'PX', request.idempotency[2])
end
return reply
