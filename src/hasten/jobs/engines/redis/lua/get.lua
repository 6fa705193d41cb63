-- uses: places
-- get: jobs by their ids.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns for each id {state, due in ms or false, {field, value, …}}; false if there is no such job.
local q = open(KEYS[1])
local found = {}
for index, id in ipairs(request.ids) do
  found[index] = false
  if exists(q, id) then
    local state, due = state_of(q, id)
    if state then
      found[index] = { state, due or false, call('HGETALL', q.base .. id) }
    end
  end
end
return found
