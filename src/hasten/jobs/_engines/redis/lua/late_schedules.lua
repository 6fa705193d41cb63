-- uses: schedule_states
-- late_schedules: find schedulers whose pending job was due before a time and has not started, or does not exist.
-- Also if a worker has claimed the job, and its lease has ended before the next job was added.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {before in ms, offset, portion: how many schedulers to check after the first `offset` ones, earliest slot
--         first, limit: how many to find at most}
-- Returns {the ids of those that were found, how many were checked}.
local q = open(KEYS[1])
local checked = read('ZRANGEBYSCORE', q.base .. 'repeat', '-inf', '(' .. request.before, 'WITHSCORES', 'LIMIT',
  request.offset, request.portion)
local late = {}
for index = 1, #checked, 2 do
  local scheduler, slot = checked[index], checked[index + 1]
  local own = state_of_schedule(q, scheduler)
  local id = 'repeat:' .. scheduler .. ':' .. slot
  local state, due
  if exists(q, id) then
    state, due = state_of(q, id)
  end
  local is_pending = state == 'waiting' or state == 'prioritized' or state == 'delayed'
  local is_late = is_pending and own.held ~= tonumber(slot) and not (due and due >= request.before)
  local is_broken = not is_pending and state ~= 'active' and not own.ended
  local is_abandoned = state == 'active' and not own.ended and own.ran ~= tonumber(slot)
    and not read('GET', q.base .. id .. ':lock')
  if is_late or is_broken or is_abandoned then
    late[#late + 1] = scheduler
    if #late >= request.limit then
      return { late, (index + 1) / 2 }
    end
  end
end
return { late, #checked / 2 }
