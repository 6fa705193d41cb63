-- uses: places
-- renew: let leases last on.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {lease in ms, ids = {…}, tokens = {…}}
-- Returns {the ids whose lease is not the caller's any more, how many ids were looked at}. Where many have to be
-- searched for in a long list, these are the first ones only.
local base, ids, tokens = KEYS[1], request.ids, request.tokens
local lost, kept, lock_keys = {}, {}, {}
local done = 0
for index, id in ipairs(ids) do
  lock_keys[index] = base .. id .. ':lock'
end
-- Read with MGET: unlike GET it takes a key of another type for none.
local held = #ids > 0 and call('MGET', unpack(lock_keys)) or {}
for index, id in ipairs(ids) do
  -- A lock that has run out is still its owner's while the job is in `active`: nobody has taken it back.
  -- After an outage that is so for all locks.
  if held[index] == tokens[index] or (not held[index] and is_in_list(base .. 'active', id)) then
    call('SET', lock_keys[index], tokens[index], 'PX', request.lease)
    kept[#kept + 1] = id
  else
    lost[#lost + 1] = id
  end
  done = index
  if has_searched_enough() then
    break
  end
end
in_portions('SREM', base .. 'stalled', kept)
return { lost, done }
