-- uses: finishing claiming metrics flow_adding
-- settle: store the outcomes of leased jobs, then claim the next ones.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {queue, now, claim or nil: see lib/claiming.lua, keeps = {{count, age in ms}, …}, outcomes = {…},
--         keep_failed: the default keep rule of failed jobs, metrics_minutes or nil: see lib/metrics.lua}
--       An outcome is {kind, id, token, …}. A keep rule is given by its index in keeps.
--         1 completed  result, keep rule
--         2 failed     failedReason, traceback or false, keep rule, counts: the run used up an attempt,
--                      exhausted: no attempts are left
--         3 retry      failedReason, traceback, delay in ms
--         4 postponed  delay in ms
--         5 released
--         6 parked     groups of children to add, orders: see lib/flow_adding.lua, how many calls have added children
-- A parent with a pending or failed child fails instead of completing. It may complete with pending children if it
-- ignores the failure of a child: that is why it has run before the others had finished (BullMQ's option
-- continueParentOnFailure).
-- Returns packed {jobs, next due or false, ids whose lease is lost, cron jobs, errors, skipped ids}: see
-- lib/claiming.lua, and `attempt` in lib/queue.lua for the errors. If a child of a parked job cannot be added, because
-- another job has its id, nothing is changed, and the reply has a seventh item: the key of this child.
local q = open(KEYS[1])
local now = request.now
local outcomes = request.outcomes
local COMPLETED, FAILED, RETRY, POSTPONED, RELEASED, PARKED = 1, 2, 3, 4, 5, 6

-- The children of parked jobs that were added before, and their descendants, and the new ones: {key = true, …}.
local known, new = {}, {}

-- Returns the key of a child that cannot be added, nil if all can.
local function find_taken(outcome)
  local job_key = q.base .. outcome[2]
  return find_in_groups(outcome[4], function(child_key, parent_key)
    if not parent_key then
      return nil -- no child: a job that is added with the outcome, unless it exists
    elseif known[parent_key] then
      known[child_key] = true
    elseif call('EXISTS', child_key) == 1 then
      if parent_key ~= job_key or read_field(child_key, 'parentKey') ~= job_key then
        return child_key
      end
      known[child_key] = true
    elseif new[child_key] then
      return child_key -- another job of this call adds it
    else
      new[child_key] = true
    end
  end)
end

for _, outcome in ipairs(outcomes) do
  local taken = outcome[1] == PARKED and find_taken(outcome)
  if taken then
    return cmsgpack.pack({ {}, false, {}, {}, {}, {}, taken })
  end
end

begin_writing(q)

-- All locks are read together here. The locks of settled jobs are deleted together below.
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

local lost, released = {}, {}
local freed_locks, freed_ids = {}, {}
local finished = {} -- scores and ids to add to `completed`
local rules = { completed = {}, failed = {} } -- the keep rules of the settled jobs, each once
local ended = { completed = 0, failed = 0 } -- how many jobs this script has finished

-- Checks the lease of a job and removes the job from `active`. Returns the fields of its hash that the outcome needs;
-- nil if the lease is lost.
local function begin(outcome)
  local id = outcome[2]
  local job_key = q.base .. id
  local lock_key = job_key .. ':lock'
  -- If the lock has expired, the lease is not lost while the job is still in `active`: no worker has reclaimed the job.
  if held[lock_key] and held[lock_key] ~= outcome[3] then
    lost[#lost + 1] = id
    return nil
  end
  held[lock_key] = 'settled' -- a second outcome of the same run is rejected as lost
  local job = read_fields(job_key, 'name', 'data', 'atm', 'parentKey', 'parent', 'deid', 'rjk')
  if not job[1] and not job[2] then
    lost[#lost + 1] = id
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

-- Returns the largest size of a result that is stored in the event, by the keep rule of the job. If the job is kept for
-- long enough, readers get a larger result from the job. Otherwise the event must have it.
local FEW = EVENT_BYTES / VALUE_BYTES -- how many values of VALUE_BYTES the stream holds
local BRIEFLY = 60000 -- ms
local function most_in_event(keep)
  local is_brief = (keep[1] >= 0 and keep[1] < FEW) or (keep[2] >= 0 and keep[2] < BRIEFLY)
  return is_brief and EVENT_BYTES or VALUE_BYTES
end

-- Returns the field `stacktrace` and its new value, to write to the hash; {} without a traceback.
local function trace_of(job_key, trace)
  if not trace then
    return {}
  end
  local stored = call('HMGET', job_key, 'stacktrace', 'opts')
  return { 'stacktrace', add_trace(stored[1], trace, stored[2]) }
end

-- Fails a job that will not be retried. Returns how many attempts it has made.
local function fail_for_good(id, job, reason, trace, keep, counts)
  local attempts = whole(job[3]) + (counts and 1 or 0)
  local fields = { parentKey = job[4], parent = job[5], deid = job[6], rjk = job[7] }
  fail(q, id, fields, reason, trace_of(q.base .. id, trace), attempts, keep[1] ~= 0, now, 'active')
  ended.failed = ended.failed + 1
  if keep[1] ~= 0 then
    rules.failed[keep[1] .. ' ' .. keep[2]] = keep
  end
  return attempts
end

local function fail_blocked_parent(id, job)
  local has_failed = call('EXISTS', q.base .. id .. ':unsuccessful') == 1
  local reason = has_failed and 'one of its children failed' or 'its children have not all finished'
  local keep = keep_rule_of(read_field(q.base .. id, 'opts'), 'removeOnFail', request.keep_failed)
  fail_for_good(id, job, reason, false, keep, true)
end

local function complete(outcome, job)
  local id, value, keep = outcome[2], outcome[4], request.keeps[outcome[5]]
  local job_key = q.base .. id
  if call('EXISTS', job_key .. ':dependencies', job_key .. ':unsuccessful') > 0 then
    if call('EXISTS', job_key .. ':unsuccessful') == 1 or call('EXISTS', job_key .. ':failed') == 0 then
      fail_blocked_parent(id, job)
      return
    end
  end
  if job[6] then
    attempt(id, end_deduplication, q, id, job[6], now)
  end
  if job[4] then
    attempt(id, child_completed, job[4], job_key, value, now)
  end
  if job[7] then
    attempt(id, run_ended, q, job[7], id)
  end
  clear_cancellation(q, id)
  if keep[1] == 0 then
    delete_keys(job_key)
  else
    call('HSET', job_key, 'returnvalue', value, 'finishedOn', now, 'atm', whole(job[3]) + 1)
    finished[#finished + 1] = now
    finished[#finished + 1] = id
    rules.completed[keep[1] .. ' ' .. keep[2]] = keep
  end
  emit_value(q, 'completed', id, 'returnvalue', value, most_in_event(keep), 'prev', 'active')
  ended.completed = ended.completed + 1
end

local function store_failed(outcome, job)
  local id = outcome[2]
  local attempts = fail_for_good(id, job, outcome[4], outcome[5], request.keeps[outcome[6]], outcome[7])
  if outcome[8] then
    emit(q, 'retries-exhausted', 'jobId', id, 'attemptsMade', attempts)
  end
end

-- Delays a job, or makes it ready, after a run that did not finish it.
local function put_back(id, delay)
  call('HSET', q.base .. id, 'delay', delay)
  if delay > 0 then
    delay_until(q, id, now + delay)
    return
  end
  local fields = read_fields(q.base .. id, 'priority', 'opts')
  local priority = priority_of(fields[1])
  make_ready(q, id, priority, priority == 0 and goes_in_front(fields[2]))
  emit_waiting(q, id, 'active')
end

local function retry(outcome, job)
  local job_key = q.base .. outcome[2]
  call('HSET', job_key, 'failedReason', outcome[4], 'atm', whole(job[3]) + 1,
    unpack(trace_of(job_key, outcome[5])))
  put_back(outcome[2], outcome[6])
end

-- Adds the children of a job, and makes the job wait for its pending children. Without any, it is put in front of the
-- queue.
local function park(outcome, job)
  local id = outcome[2]
  local job_key = q.base .. id
  if call('EXISTS', job_key .. ':unsuccessful') == 1 then
    fail_blocked_parent(id, job)
    return
  end
  local fields = read_fields(job_key, 'defa', 'priority', 'hasten:add_calls')
  if not fields[1] then
    add_groups(outcome[4], known, now)
    store_orders(outcome[5], known)
    call('HSET', job_key, 'hasten:add_calls', math.max(whole(fields[3]), outcome[6]))
  end
  call('HSET', job_key, 'delay', 0)
  if not fields[1] and call('EXISTS', job_key .. ':dependencies') == 1 then
    call('ZADD', q.base .. 'waiting-children', now, id)
    emit(q, 'waiting-children', 'jobId', id, 'prev', 'active')
  else
    make_ready(q, id, priority_of(fields[2]), true)
    emit_waiting(q, id, 'active')
  end
end

-- The places of released jobs in `active`, where the job that was claimed last has the lowest place. A job that is not
-- among the NEWEST was claimed earlier than these. Such jobs are assumed to have been claimed in the order of outcomes.
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
      store_failed(outcome, job)
    elseif kind == RETRY then
      retry(outcome, job)
    elseif kind == POSTPONED then
      put_back(outcome[2], outcome[4])
    elseif kind == RELEASED then
      released[#released + 1] = outcome[2]
    elseif kind == PARKED then
      park(outcome, job)
    end
  end
end

-- Put released jobs back so that the job that was claimed first is in front. The order in the request does not matter:
-- the replies to two claims of one worker may have arrived in the wrong order.
table.sort(released, function(a, b)
  return started[a] < started[b]
end)
for _, id in ipairs(released) do
  make_ready(q, id, priority_of(read_field(q.base .. id, 'priority')), true)
  emit_waiting(q, id, 'active')
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

if request.metrics_minutes then
  for state, count in pairs(ended) do
    count_finished(q, state, count, now, request.metrics_minutes)
  end
end

local records, next_due, crons, skipped = {}, false, {}, {}
if request.claim then
  records, next_due, crons, skipped = claim_jobs(q, request.claim, now)
end
if #records == 0 and #freed_ids > 0 then
  emit_if_drained(q)
end
update_marker(q)
close_all()
return cmsgpack.pack({ records, next_due, lost, crons, errors, skipped })
