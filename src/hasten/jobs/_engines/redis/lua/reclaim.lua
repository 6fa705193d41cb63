-- uses: states
-- reclaim: take back the active jobs without a lock. A lock is missing if the worker has died: a live worker renews its
-- locks, and removes a job from `active` when it deletes the lock. One call checks a limited number of jobs.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, crash_limit, error, portion, last or nil, deadline or nil}
--         error is the error of a job that has crashed too often; "{}" in it stands for the number of crashes.
--         The call checks the `portion` jobs that end at place `last`, counted from the job that started first; nil
--         means all places. The jobs that started first are checked in the last call, so that they end up in front.
--         deadline: if the server's clock is past this time, in ms, no job is taken back.
-- Returns {ids of the jobs that were taken back, the latest started first; `last` for the next call, 0 at the end}.
local q = open(KEYS[1])
local key = q.base .. 'active'
if request.deadline and server_time() > request.deadline then
  return { {}, 0 }
end
local last = math.min(request.last or math.huge, call('LLEN', key))
local first = math.max(0, last - request.portion)
if last == 0 then
  return { {}, 0 }
end
local ids = call('LRANGE', key, -last, -first - 1) -- the job that started last comes first

local locks = {}
for index, id in ipairs(ids) do
  locks[index] = q.base .. id .. ':lock'
end
if call('EXISTS', unpack(locks)) == #locks then
  return { {}, first }
end
local expired, places = {}, {}
for index, id in ipairs(ids) do
  if call('EXISTS', locks[index]) == 0 then
    expired[#expired + 1] = id
    table.insert(places, 1, last - index + 1)
  end
end

begin_writing(q)
remove_places(key, places)
in_portions('SREM', q.base .. 'stalled', expired)
local reclaimed = {}
for _, id in ipairs(expired) do
  local job_key = q.base .. id
  local job = read_fields(job_key, 'name', 'data', 'priority', 'stc', 'defa')
  if job[1] or job[2] then
    local crashes = whole(job[4]) + 1
    call('HSET', job_key, 'stc', crashes)
    -- The next worker that claims a pending run has to add the run after it.
    if crashes >= request.crash_limit and not job[5] and not is_pending_run(q, id) then
      local failure = string.gsub(request.error, '{}', string.format('%.0f', crashes))
      call('HSET', job_key, 'defa', failure)
    end
    make_ready(q, id, priority_of(job[3]), true)
    emit_waiting(q, id, 'active')
    emit(q, 'stalled', 'jobId', id)
    reclaimed[#reclaimed + 1] = id
  end
end
close_all()
return { reclaimed, first }
