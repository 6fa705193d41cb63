-- uses: deduplication deleting
-- Finishing jobs: failing them, retention, and the changes in other jobs.
local STACK_LIMIT = 20 -- how many tracebacks are kept if the job's options set no limit
local MOST_TRACES = 1000 -- the largest limit that the options may set

-- Returns the value of the hash field `stacktrace`, a JSON array with the oldest traceback first, with trace added.
local function add_trace(stored, trace, opts)
  local ok, traces = pcall(cjson.decode, stored or '[]')
  if not ok or type(traces) ~= 'table' then
    traces = {}
  end
  local read, options = pcall(cjson.decode, opts or '{}')
  local limit = STACK_LIMIT
  if read and type(options) == 'table' and tonumber(options.stackTraceLimit) then
    limit = whole(options.stackTraceLimit, MOST_TRACES)
  end
  local kept = {}
  for place = math.max(1, #traces + 2 - limit), #traces do
    if type(traces[place]) == 'string' then
      kept[#kept + 1] = traces[place]
    end
  end
  if limit > 0 then
    kept[#kept + 1] = trace
  end
  return #kept > 0 and cjson.encode(kept) or '[]'
end

-- Converts a limit in a keep rule: nil if it is not a number, -1 if there is no limit.
local function keep_limit(value, factor)
  if value == nil or value == cjson.null then
    return -1
  end
  local number = tonumber(value)
  if not number or number ~= number then
    return nil
  end
  return number < 0 and -1 or math.ceil(math.min(number * factor, MOST))
end

-- Returns the keep rule of a job, {count, age in ms} with -1 for no limit, from its options: `removeOnComplete` or
-- `removeOnFail`, as BullMQ writes them. Returns default if the job has no rule, or an invalid one.
local function keep_rule_of(opts, name, default)
  local ok, options = pcall(cjson.decode, opts or '{}')
  local rule = nil
  if ok and type(options) == 'table' then
    rule = options[name]
  end
  if rule == nil or rule == cjson.null then
    return default
  elseif type(rule) == 'boolean' then
    return { rule and 0 or -1, -1 }
  end
  local is_table = type(rule) == 'table'
  local count = keep_limit(is_table and rule.count or not is_table and rule or nil, 1)
  local age = keep_limit(is_table and rule.age or nil, 1000)
  return count and age and { count, age } or default
end

-- Retention: deletes the finished jobs that a keep rule does not keep. One script deletes at most RETAINED_AT_ONCE
-- jobs, which is more than it finishes. Later scripts delete the rest.
local RETAINED_AT_ONCE = 500
local deleted = 0

local function delete_finished(q, finished, old)
  for _, id in ipairs(old) do
    delete_job(q, id)
  end
  in_portions('ZREM', finished, old)
  deleted = deleted + #old
end

-- Applies a keep rule to the jobs in a finished state. count and age (in ms) are -1 for no limit.
local function retain(q, state, count, age, now)
  local finished = q.base .. state
  if age >= 0 then
    local left = RETAINED_AT_ONCE - deleted
    delete_finished(q, finished, call('ZRANGEBYSCORE', finished, '-inf', now - age, 'LIMIT', 0, left))
  end
  if count >= 0 then
    local excess = math.min(call('ZCARD', finished) - count, RETAINED_AT_ONCE - deleted)
    if excess > 0 then
      delete_finished(q, finished, call('ZRANGE', finished, 0, excess - 1))
    end
  end
end

-- Removes a request to cancel the job. Most queues have none, so the set is checked once per script.
local function clear_cancellation(q, id)
  if q.cancels == nil then
    q.cancels = call('EXISTS', q.base .. 'hasten:cancelled') == 1
  end
  if q.cancels then
    call('SREM', q.base .. 'hasten:cancelled', id)
    call('HDEL', q.base .. id, 'defa')
  end
end

-- Fails a job that was removed from its state before. fields are parentKey, parent, deid and rjk of its hash; trace_fields
-- are further fields and values to write; keeps_it is false if the keep rule deletes the job at once.
local function fail(q, id, fields, reason, trace_fields, attempts, keeps_it, now, previous)
  local job_key = q.base .. id
  if fields.deid then
    attempt(id, end_deduplication, q, id, fields.deid, now)
  end
  if fields.parentKey then
    attempt(id, child_failed, fields.parentKey, fields.parent, job_key, reason, now)
  end
  if fields.rjk then
    attempt(id, run_ended, q, fields.rjk, id)
  end
  clear_cancellation(q, id)
  if keeps_it then
    call('ZADD', q.base .. 'failed', now, id)
    call('HSET', job_key, 'failedReason', reason, 'finishedOn', now, 'atm', attempts, unpack(trace_fields))
    call('HDEL', job_key, 'defa')
  else
    if fields.parentKey then
      attempt(id, unlink, fields.parentKey, job_key)
    end
    delete_keys(job_key)
  end
  emit_value(q, 'failed', id, 'failedReason', reason, EVENT_BYTES, 'prev', previous)
end

local function emit_if_drained(q)
  if call('EXISTS', q.base .. 'wait', q.base .. 'active', q.base .. 'prioritized', q.base .. 'delayed') == 0 then
    emit(q, 'drained')
  end
end
