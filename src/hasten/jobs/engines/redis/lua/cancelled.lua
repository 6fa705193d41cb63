-- uses: queue
-- cancelled: the running jobs whose cancellation was asked for. Others are struck off: BullMQ, which
-- may have ended or deleted them, does not know of the list.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {}
local base = KEYS[1]
local running = {}
for _, id in ipairs(call('SMEMBERS', base .. 'hasten:cancelled')) do
  if call('LPOS', base .. 'active', id) then
    running[#running + 1] = id
  else
    call('SREM', base .. 'hasten:cancelled', id)
  end
end
return running
