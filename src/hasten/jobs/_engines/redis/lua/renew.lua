-- uses: states
-- renew: extend leases.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {lease in ms, ids = {…}, tokens = {…}}
-- Returns {the ids whose lease is lost, how many ids were handled}. If a long list has to be searched, only the first
-- ids are handled.
local base, ids, tokens = KEYS[1], request.ids, request.tokens
local lost, kept, lock_keys = {}, {}, {}
local done = 0
for index, id in ipairs(ids) do
  lock_keys[index] = base .. id .. ':lock'
end
-- MGET, unlike GET, treats a key of another type as missing.
local held = #ids > 0 and call('MGET', unpack(lock_keys)) or {}
for index, id in ipairs(ids) do
  -- If a lock has expired, the lease is not lost while the job is still in `active`: no worker has reclaimed the job.
  -- After an outage of the server, all locks have expired.
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
