-- uses: states
-- get: return jobs by their ids.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns for each id {state, due in ms or false, {field, value, …}}; false if there is no such job. If the jobs are
-- large, only the first ids are handled, and the reply is shorter.
local q = open(KEYS[1])
local found, read_bytes = {}, 0
for index, id in ipairs(request.ids) do
  found[index] = false
  if exists(q, id) then
    local state, due = state_of(q, id)
    if state then
      local fields = call('HGETALL', q.base .. id)
      found[index] = { state, due or false, fields }
      for place = 2, #fields, 2 do
        read_bytes = read_bytes + #fields[place]
      end
    end
  end
  if read_bytes >= BYTES_AT_ONCE then
    break
  end
end
return found
