-- uses: finishing taking
-- settle: store how leased jobs ended, then claim the next ones.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {queue, now, wish or nil: see taking.lua, keeps = {{count, age in ms}, …}, outcomes = {…}}
--       an outcome is {kind, id, token, …}:
--         1 completed  value, number of its keep rule
--         2 failed     reason, trace or false, number of its keep rule, counts, exhausted
--         3 retry      reason, trace, delay in ms
--         4 postponed  delay in ms
--         5 released
-- Returns packed {jobs, next due or false, lost ids, {{id, code}, …} of parents that cannot
-- complete, crons, troubles}: code -4 while children are pending, -9 when one has failed the parent.
-- These are still leased.
local q = open(KEYS[1])
local now = request.now
local outcomes = request.outcomes
local COMPLETED, FAILED, RETRY, POSTPONED, RELEASED = 1, 2, 3, 4, 5

begin_writing(q)

-- All locks are read at once, and those that are ours are deleted at once.
local lock_keys, held = {}, {}
for index, outcome in ipairs(outcomes) do
  lock_keys[index] = q.base .. outcome[2] .. ':lock'
end
for first = 1, #lock_keys, 1000 do
  local last = math.min(first + 999, #lock_keys)
  for offset, token in ipairs(call('MGET', unpack(lock_keys, first, last))) do
    held[lock_keys[first + offset - 1]] = token
  end
end

local lost, refused, released = {}, {}, {}
local freed_locks, freed_ids = {}, {}
local finished = {} -- scores and ids for `completed`
local rules = {} -- the keep rules that have been used, by state

-- What a job needs to be finished or put back; nil if it is not ours any longer.
local function begin(outcome)
  local id = outcome[2]
  local job_key = q.base .. id
  local lock_key = job_key .. ':lock'
  -- A lock that has run out is still its owner's while the job is in `active`: nobody has taken it back.
  if held[lock_key] and held[lock_key] ~= outcome[3] then
    lost[#lost + 1] = id
    return nil
  end
  held[lock_key] = 'settled' -- a second outcome for the same run finds it gone
  local job = read_fields(job_key, 'name', 'data', 'atm', 'parentKey', 'parent', 'deid')
  if not job[1] and not job[2] then
    lost[#lost + 1] = id
    return nil
  end
  if outcome[1] == COMPLETED and call('EXISTS', job_key .. ':dependencies', job_key .. ':unsuccessful') > 0 then
    local pending = call('EXISTS', job_key .. ':dependencies') == 1
    refused[#refused + 1] = { id, pending and -4 or -9 }
    return nil
  end
  if call('LREM', q.base .. 'active', -1, id) == 0 then
    lost[#lost + 1] = id
    return nil
  end
  freed_locks[#freed_locks + 1] = lock_key
  freed_ids[#freed_ids + 1] = id
  return job
end

-- A job that is kept for long enough to be read has its result. The others have theirs in the event only.
local FEW = EVENT_BYTES / VALUE_BYTES -- as many values as the events hold
local BRIEFLY = 60000 -- ms
local function most_in_event(keep)
  local is_brief = (keep[1] >= 0 and keep[1] < FEW) or (keep[2] >= 0 and keep[2] < BRIEFLY)
  return is_brief and EVENT_BYTES or VALUE_BYTES
end

local function complete(outcome, job)
  local id, value, keep = outcome[2], outcome[4], request.keeps[outcome[5]]
  local job_key = q.base .. id
  if job[6] then
    attempt(id, end_deduplication, q, id, job[6], now)
  end
  if job[4] then
    attempt(id, child_completed, job[4], job_key, value, now)
  end
  forget_cancel(q, id)
  if keep[1] == 0 then
    delete_keys(job_key)
  else
    call('HSET', job_key, 'returnvalue', value, 'finishedOn', now, 'atm', whole(job[3]) + 1)
    finished[#finished + 1] = now
    finished[#finished + 1] = id
    rules.completed = rules.completed or {}
    rules.completed[outcome[5]] = keep
  end
  tell_value(q, 'completed', id, 'returnvalue', value, most_in_event(keep), 'prev', 'active')
end

local function trace_of(job_key, trace)
  if not trace then
    return {}
  end
  local stored = call('HMGET', job_key, 'stacktrace', 'opts')
  return { 'stacktrace', add_trace(stored[1], trace, stored[2]) }
end

local function fail_for_good(outcome, job)
  local id, reason, keep = outcome[2], outcome[4], request.keeps[outcome[6]]
  local attempts = whole(job[3]) + (outcome[7] and 1 or 0)
  local fields = { parentKey = job[4], parent = job[5], deid = job[6] }
  fail(q, id, fields, reason, trace_of(q.base .. id, outcome[5]), attempts, keep[1] ~= 0, now, 'active')
  if keep[1] ~= 0 then
    rules.failed = rules.failed or {}
    rules.failed[outcome[6]] = keep
  end
  if outcome[8] then
    tell(q, 'retries-exhausted', 'jobId', id, 'attemptsMade', attempts)
  end
end

local function put_back(id, delay)
  call('HSET', q.base .. id, 'delay', delay)
  if delay > 0 then
    delay_until(q, id, now + delay)
    return
  end
  local fields = read_fields(q.base .. id, 'priority', 'opts')
  local priority = priority_of(fields[1])
  make_ready(q, id, priority, priority == 0 and goes_in_front(fields[2]))
  tell_waiting(q, id, 'active')
end

local function retry(outcome, job)
  local job_key = q.base .. outcome[2]
  call('HSET', job_key, 'failedReason', outcome[4], 'atm', whole(job[3]) + 1,
    unpack(trace_of(job_key, outcome[5])))
  put_back(outcome[2], outcome[6])
end

-- Where jobs that are released stand in `active`: the one that was claimed last in front. Those that are not
-- among the newest were claimed before them, in the order of the outcomes.
local NEWEST = 10000
local started = {}
for place, outcome in ipairs(outcomes) do
  if outcome[1] == RELEASED then
    if not next(started) then
      for index, id in ipairs(call('LRANGE', q.base .. 'active', 0, NEWEST - 1)) do
        started[id] = index
      end
    end
    started[outcome[2]] = started[outcome[2]] or NEWEST + #outcomes - place
  end
end

for _, outcome in ipairs(outcomes) do
  local job = begin(outcome)
  if job then
    local kind = outcome[1]
    if kind == COMPLETED then
      complete(outcome, job)
    elseif kind == FAILED then
      fail_for_good(outcome, job)
    elseif kind == RETRY then
      retry(outcome, job)
    elseif kind == POSTPONED then
      put_back(outcome[2], outcome[4])
    elseif kind == RELEASED then
      released[#released + 1] = outcome[2]
    end
  end
end

-- The one that was claimed first comes to stand nearest to the front, whatever their order here: two
-- claims of one worker may have been answered the other way round.
table.sort(released, function(a, b)
  return started[a] < started[b]
end)
for _, id in ipairs(released) do
  make_ready(q, id, priority_of(read_field(q.base .. id, 'priority')), true)
  tell_waiting(q, id, 'active')
end

if #freed_ids > 0 then
  for first = 1, #freed_locks, 1000 do
    call('DEL', unpack(freed_locks, first, math.min(first + 999, #freed_locks)))
  end
  in_portions('SREM', q.base .. 'stalled', freed_ids)
end
in_portions('ZADD', q.base .. 'completed', finished)
for state, used in pairs(rules) do
  for _, keep in pairs(used) do
    retain(q, state, keep[1], keep[2], now)
  end
end

local records, next_due, crons = {}, false, {}
if request.wish then
  records, next_due, crons = take(q, request.wish, now)
end
if #records == 0 and #freed_ids > 0 then
  tell_if_drained(q)
end
pass_marker_on(q)
close_all()
return cmsgpack.pack({ records, next_due, lost, refused, crons, troubles })
