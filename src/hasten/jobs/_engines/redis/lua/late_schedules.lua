-- uses: schedule_states
-- late_schedules: find schedulers whose pending job was due before a time and has not started, or does not exist.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {before in ms, offset, portion: how many schedulers to check after the first `offset` ones, earliest slot
--         first}
-- Returns {the ids of those that were found, how many were checked}.
local q = open(KEYS[1])
local checked = read('ZRANGEBYSCORE', q.base .. 'repeat', '-inf', '(' .. request.before, 'WITHSCORES', 'LIMIT',
  request.offset, request.portion)
local late = {}
for index = 1, #checked, 2 do
  local scheduler, slot = checked[index], checked[index + 1]
  local own = state_of_schedule(q, scheduler)
  if not own.ended and own.held ~= tonumber(slot) then
    local id = 'repeat:' .. scheduler .. ':' .. slot
    local state, due
    if exists(q, id) then
      state, due = state_of(q, id)
    end
    if state ~= 'active' and not (due and due >= request.before) then
      late[#late + 1] = scheduler
    end
  end
end
return { late, #checked / 2 }
