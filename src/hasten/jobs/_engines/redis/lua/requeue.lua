-- uses: flows
-- requeue: make jobs ready that are delayed (promote) or finished (run again).
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, ids = {…}, sources = {state = true, …}}
-- Returns for each id the state in which the job was found; false if there is no such job. Jobs that were found in
-- one of the sources are ready now, or wait for their pending children. If long lists have to be searched, only the first ids are handled, and the reply
-- is shorter.
local q = open(KEYS[1])
begin_writing(q)
local answers = {}
for index, id in ipairs(request.ids) do
  local job_key = q.base .. id
  local state = exists(q, id) and state_of(q, id)
  answers[index] = state or false
  if state and request.sources[state] then
    remove_from_state(q, id, state)
    local job = read_fields(job_key, 'priority', 'opts', 'parentKey')
    local priority = priority_of(job[1])
    local waits = false
    if state == 'delayed' then
      call('HSET', job_key, 'delay', 0)
      make_ready(q, id, priority, false)
    else
      call('HDEL', job_key, 'finishedOn', 'processedOn', 'failedReason', 'returnvalue', 'progress', 'atm',
        'stc', 'defa')
      call('SREM', q.base .. 'hasten:cancelled', id) -- BullMQ does not remove the id when it finishes a job
      call('HSET', job_key, 'delay', 0)
      waits = wait_again(q, id, request.now)
      if not waits then
        make_ready(q, id, priority, priority == 0 and goes_in_front(job[2]))
      end
      if job[3] then
        attempt(id, relink, job[3], job_key, state)
      end
    end
    if waits then
      emit(q, 'waiting-children', 'jobId', id, 'prev', state)
    else
      emit_waiting(q, id, state)
    end
  end
  if has_searched_enough() then
    break
  end
end
close_all()
return answers
