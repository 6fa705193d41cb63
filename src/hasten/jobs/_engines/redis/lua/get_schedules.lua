-- uses: schedule_states
-- get_schedules: return schedulers by their ids.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns for each id what `describe_schedule` returns; false if there is no such scheduler. If the records are large,
-- only the first ids are handled, and the reply is shorter.
local q = open(KEYS[1])
local answers, read_bytes = {}, 0
for index, scheduler in ipairs(request.ids) do
  local found = find_schedule(q, scheduler)
  answers[index] = found and describe_schedule(q, scheduler, found) or false
  for _, text in ipairs(found and found[2] or {}) do
    read_bytes = read_bytes + #text
  end
  if read_bytes >= BYTES_AT_ONCE then
    break
  end
end
return answers
