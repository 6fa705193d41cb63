-- uses: finishing
-- cancel: fail jobs that have not started, and ask for running ones to be stopped.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, ids = {…}, keeps = {{count, age in ms}, …}: for each id, reason}
-- Returns for each id the state in which it was found, false if there is no such job; "armed" for
-- the pending iteration of a scheduler, which goes with its scheduler. Where many have to be searched for
-- in a long list, for the first ids only: the others were not cancelled.
local q = open(KEYS[1])
local now, reason = request.now, request.reason
begin_writing(q)
local answers = {}
local rules = {} -- the keep rules that have been used
for index, id in ipairs(request.ids) do
  local job_key = q.base .. id
  local state = exists(q, id) and state_of(q, id)
  answers[index] = state
  if state == 'active' then
    -- Should its worker give it back, the next one fails it, and so would one of BullMQ's.
    call('HSET', job_key, 'defa', reason)
    call('SADD', q.base .. 'hasten:cancelled', id)
  elseif state and state ~= 'completed' and state ~= 'failed' and is_armed(q, id) then
    answers[index] = 'armed'
  elseif state and state ~= 'completed' and state ~= 'failed' then
    local job = read_fields(job_key, 'parentKey', 'parent', 'deid', 'atm')
    local keep = request.keeps[index]
    local fields = { parentKey = job[1], parent = job[2], deid = job[3] }
    take_out(q, id, state)
    fail(q, id, fields, reason, {}, whole(job[4]), keep[1] ~= 0, now, state)
    if keep[1] ~= 0 then
      rules[keep[1] .. ' ' .. keep[2]] = keep
    end
  end
  if has_searched_enough() then
    break
  end
end
for _, keep in pairs(rules) do
  retain(q, 'failed', keep[1], keep[2], now)
end
close_all()
return answers
