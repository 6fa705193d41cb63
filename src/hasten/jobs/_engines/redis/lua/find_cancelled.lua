-- uses: states
-- find_cancelled: return the ids of those running jobs that somebody has cancelled.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}: the jobs that a worker runs
local q = open(KEYS[1])
local key = q.base .. 'hasten:cancelled'
if call('EXISTS', key) == 0 then
  return {}
end

-- BullMQ does not remove ids from this set when it finishes or deletes a job. Each call therefore checks a few random
-- ids, and removes those of jobs that are not running.
for _, id in ipairs(call('SRANDMEMBER', key, 10)) do
  if call('EXISTS', q.base .. id .. ':lock') == 0 and not is_in_list(q.base .. 'active', id) then
    call('SREM', key, id)
  end
  if has_searched_enough() then
    break
  end
end

local asked = {}
for index, is_asked in ipairs(call('SMISMEMBER', key, unpack(request.ids))) do
  if is_asked == 1 then
    asked[#asked + 1] = request.ids[index]
  end
end
return asked
