-- uses: removing
-- remove: delete jobs with their descendants, logs and other keys. Running jobs are not deleted.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns {answers, keys}. There is an answer for each id: the state in which the job was found; false if there is no
-- such job; "scheduled" for the pending job of a scheduler, which is not removed; "active" if the job or one of its
-- descendants is running. If long lists have to be searched, only the first ids are handled, and the answers are fewer.
-- keys are those of descendants that are left: the caller passes them to remove_descendants.
local q = open(KEYS[1])
begin_writing(q)
local answers, left = {}, {}
for index, id in ipairs(request.ids) do
  local job_key = q.base .. id
  local state = call('EXISTS', job_key) == 1 and state_of(q, id)
  answers[index] = state
  if state and state ~= 'active' and is_pending_run(q, id) then
    answers[index] = 'scheduled'
  elseif state then
    local descendants = descendants_of(job_key)
    if state == 'active' or is_any_running({ job_key }) or is_any_running(descendants) then
      answers[index] = 'active'
    else
      remove_job(q, id, state)
      for _, key in ipairs(descendants) do
        left[#left + 1] = key
      end
    end
  end
  if has_searched_enough() then
    break
  end
end
left = remove_descendants(left)
close_all()
return { answers, left }
