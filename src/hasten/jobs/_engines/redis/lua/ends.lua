-- uses: states
-- ends: return how jobs have ended.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns for each id {state, result or failedReason or false}; false if there is no such job. If the values are large,
-- only the first ids are handled, and the reply is shorter.
local q = open(KEYS[1])
local VALUES = { completed = 'returnvalue', failed = 'failedReason' }
local ends, read_bytes = {}, 0
for index, id in ipairs(request.ids) do
  local state = exists(q, id) and state_of(q, id)
  ends[index] = state and { state, false }
  if VALUES[state] then
    local value = read_field(q.base .. id, VALUES[state])
    ends[index][2] = value or false
    read_bytes = read_bytes + (value and #value or 0)
  end
  if read_bytes >= BYTES_AT_ONCE then
    break
  end
end
return ends
