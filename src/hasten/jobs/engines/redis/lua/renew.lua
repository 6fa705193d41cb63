-- uses: queue
-- renew: let leases last on.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {lease in ms, ids = {…}, tokens = {…}}
-- Returns the ids whose lease is not the caller's any more.
local base, ids, tokens = KEYS[1], request.ids, request.tokens
local lost, kept = {}, {}
for index, id in ipairs(ids) do
  local lock_key = base .. id .. ':lock'
  if call('GET', lock_key) == tokens[index] then
    call('SET', lock_key, tokens[index], 'PX', request.lease)
    kept[#kept + 1] = id
  else
    lost[#lost + 1] = id
  end
end
in_portions('SREM', base .. 'stalled', kept)
return lost
