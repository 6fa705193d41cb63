-- uses: schedule_states
-- list_schedules: return the ids of a page of schedulers, by their slots. Paused ones have none, and come last, by id.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {offset, limit}
local ids = read('ZRANGE', KEYS[1] .. 'repeat', request.offset, request.offset + request.limit - 1)
if #ids < request.limit then
  local paused = paused_schedulers(KEYS[1])
  local count = read('ZCARD', KEYS[1] .. 'repeat')
  local first = math.max(0, request.offset - (tonumber(count) or 0))
  for index = first + 1, math.min(#paused, first + request.limit - #ids) do
    ids[#ids + 1] = paused[index]
  end
end
return ids
