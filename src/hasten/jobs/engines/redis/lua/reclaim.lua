-- uses: places
-- reclaim: take back the active jobs whose lock is gone. Their worker is, too: a worker renews its
-- locks, and takes them out when it lets go of a job.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, crash_limit, reason: "{}" stands for the number of crashes}
-- Returns their ids, the one that started first in front.
local q = open(KEYS[1])
local active = call('LRANGE', q.base .. 'active', 0, -1)
local expired = {} -- the one that started last in front

for first = 1, #active, 500 do
  local locks = {}
  for index = first, math.min(first + 499, #active) do
    locks[#locks + 1] = q.base .. active[index] .. ':lock'
  end
  if call('EXISTS', unpack(locks)) < #locks then
    for offset, lock_key in ipairs(locks) do
      if call('EXISTS', lock_key) == 0 then
        expired[#expired + 1] = active[first + offset - 1]
      end
    end
  end
end
if #expired == 0 then
  return {}
end

begin_writing(q)
local taken_back = {}
for _, id in ipairs(expired) do
  local job_key = q.base .. id
  call('LREM', q.base .. 'active', -1, id)
  call('SREM', q.base .. 'stalled', id)
  local job = read_fields(job_key, 'name', 'data', 'priority', 'stc', 'defa', 'rjk')
  if job[1] or job[2] then
    local crashes = whole(job[4]) + 1
    call('HSET', job_key, 'stc', crashes)
    if crashes >= request.crash_limit and not job[5]
      and not (job[6] and call('ZSCORE', q.base .. 'repeat', job[6])) then
      local reason = string.gsub(request.reason, '{}', string.format('%.0f', crashes))
      call('HSET', job_key, 'defa', reason)
    end
    make_ready(q, id, priority_of(job[3]), true)
    tell_waiting(q, id, 'active')
    tell(q, 'stalled', 'jobId', id)
    table.insert(taken_back, 1, id)
  end
end
close_all()
return taken_back
