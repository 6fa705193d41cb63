-- uses: deleting
-- remove: delete jobs with their children, logs and other keys. Running jobs are not deleted.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns for each id the state in which the job was found; false if there is no such job; "scheduled" for the pending
-- job of a scheduler, which is not removed; "active" if the job or one of its children is running. If long lists have
-- to be searched, only the first ids are handled, and the reply is shorter.
local q = open(KEYS[1])

-- The suffixes of a parent's keys that hold the keys of its children, with the command that reads them.
local CHILDREN = { dependencies = 'SMEMBERS', processed = 'HKEYS', failed = 'HKEYS', unsuccessful = 'ZRANGE' }

local function children_of(job_key)
  local found = {}
  for suffix, command in pairs(CHILDREN) do
    local keys
    if command == 'ZRANGE' then
      keys = read(command, job_key .. ':' .. suffix, 0, -1)
    else
      keys = read(command, job_key .. ':' .. suffix)
    end
    for _, key in ipairs(keys) do
      found[#found + 1] = key
    end
  end
  return found
end

-- Whether a job, or a descendant that has not finished, has a lock.
local function is_running(job_key)
  if call('EXISTS', job_key .. ':lock') == 1 then
    return true
  end
  for _, child_key in ipairs(read('SMEMBERS', job_key .. ':dependencies')) do
    if is_running(child_key) then
      return true
    end
  end
  return false
end

local function remove(base, id)
  local job_key = base .. id
  local queue = open(base)
  local state = call('EXISTS', job_key) == 1 and state_of(queue, id)
  for _, child_key in ipairs(children_of(job_key)) do
    local child_base, child_id = split(child_key)
    if child_base then
      remove(child_base, child_id)
    end
  end
  -- The deletion of its last child may have moved the job.
  local now_in = state and state_of(queue, id)
  if now_in then
    remove_from_state(queue, id, now_in)
  end
  release_deduplication(queue, id)
  delete_job(queue, id)
  if state then
    emit(queue, 'removed', 'jobId', id, 'prev', state == 'waiting' and 'wait' or state)
  end
end

begin_writing(q)
local answers = {}
for index, id in ipairs(request.ids) do
  local state = call('EXISTS', q.base .. id) == 1 and state_of(q, id)
  if state and state ~= 'active' and is_pending_run(q, id) then
    answers[index] = 'scheduled'
  elseif state and (state == 'active' or is_running(q.base .. id)) then
    answers[index] = 'active'
  else
    answers[index] = state
    if state then
      remove(q.base, id)
    end
  end
  if has_searched_enough() then
    break
  end
end
close_all()
return answers
