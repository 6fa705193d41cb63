-- uses: finishing
-- cancel: fail jobs that have not started, and request that running ones stop.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, ids = {…}, error, keep_failed: the default keep rule of failed jobs}
-- Returns for each id the state in which the job was found; false if there is no such job; "scheduled" for the pending
-- job of a scheduler, which is not cancelled. If long lists have to be searched, only the first ids are handled, and
-- the reply is shorter.
local q = open(KEYS[1])
local now, reason = request.now, request.error
begin_writing(q)
local answers = {}
local rules = {} -- the keep rules that apply, each once
for index, id in ipairs(request.ids) do
  local job_key = q.base .. id
  local state = exists(q, id) and state_of(q, id)
  answers[index] = state
  if state == 'active' then
    -- If its worker hands it back, the next worker that claims it fails it because of `defa`. BullMQ's workers do so,
    -- too.
    call('HSET', job_key, 'defa', reason)
    call('SADD', q.base .. 'hasten:cancelled', id)
  elseif state and state ~= 'completed' and state ~= 'failed' and is_pending_run(q, id) then
    answers[index] = 'scheduled'
  elseif state and state ~= 'completed' and state ~= 'failed' then
    local job = read_fields(job_key, 'parentKey', 'parent', 'deid', 'atm', 'opts', 'rjk')
    local keep = keep_rule_of(job[5], 'removeOnFail', request.keep_failed)
    local fields = { parentKey = job[1], parent = job[2], deid = job[3], rjk = job[6] }
    remove_from_state(q, id, state)
    fail(q, id, fields, reason, {}, whole(job[4]), keep[1] ~= 0, now, state)
    if job[3] then
      release_window(q, id, job[3])
    end
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
