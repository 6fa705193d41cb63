-- uses: adding deleting
-- The end of a job: what is kept of it, and what its end means to others.
local STACK_LIMIT = 20 -- the newest traces that are kept, where the job does not say
local MOST_TRACES = 1000

-- A trace more for the hash field `stacktrace`, a JSON array, oldest first.
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

-- The deduplication id is free, and the job that was to follow its owner is added.
local function end_deduplication(q, id, deduplication, now)
  local owner, next_job = q.base .. 'de:' .. deduplication, q.base .. 'dn:' .. deduplication
  local left = call('PTTL', owner)
  if left == 0 or (left == -1 and call('GET', owner) == id) then
    call('DEL', owner)
  end
  local fields = read_fields(next_job, 'name', 'data', 'opts', 'jid', 'pk', 'pd', 'pdk', 'rjk')
  if not fields[1] then
    return
  end
  local count = call('INCR', q.base .. 'id')
  local next_id = fields[4] or string.format('%.0f', count)
  local ok, options = pcall(cjson.decode, fields[3] or '{}')
  if not ok or type(options) ~= 'table' then
    options = {}
  end
  local settings = type(options.de) == 'table' and options.de or {}
  local ttl = whole(settings.ttl)
  if ttl > 0 and not settings.keepLastIfActive then
    call('SET', owner, next_id, 'PX', ttl)
  else
    call('SET', owner, next_id)
  end
  local delay, priority = whole(options.delay), priority_of(options.priority)
  local extra = { 'deid', deduplication }
  for name, value in pairs({ parentKey = fields[5], parent = fields[6], rjk = fields[8] }) do
    if value then
      extra[#extra + 1] = name
      extra[#extra + 1] = value
    end
  end
  store(q, next_id, fields[1], fields[2] or '{}', fields[3] or '{}', now, delay, priority, unpack(extra))
  place(q, next_id, now, delay, priority, options.lifo == true)
  if fields[7] then
    call('SADD', fields[7], q.base .. next_id)
  end
  call('DEL', next_job)
end

-- Delete the finished jobs that a rule does not keep: by age in ms, by count; -1 is no limit. A script deletes
-- so many of them, more than it finishes; what is left goes with the jobs that finish next.
local RETAINED_AT_ONCE = 500
local deleted = 0

local function delete_finished(q, finished, old)
  for _, id in ipairs(old) do
    delete_job(q, id)
  end
  in_portions('ZREM', finished, old)
  deleted = deleted + #old
end

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

local function forget_cancel(q, id)
  if q.cancels == nil then
    q.cancels = call('EXISTS', q.base .. 'hasten:cancelled') == 1
  end
  if q.cancels then
    call('SREM', q.base .. 'hasten:cancelled', id)
    call('HDEL', q.base .. id, 'defa')
  end
end

-- A job that is in no state any longer ends as failed. fields: parentKey, parent, deid.
local function fail(q, id, fields, reason, trace_fields, attempts, keeps_it, now, previous)
  local job_key = q.base .. id
  if fields.deid then
    attempt(id, end_deduplication, q, id, fields.deid, now)
  end
  if fields.parentKey then
    attempt(id, child_failed, fields.parentKey, fields.parent, job_key, reason, now)
  end
  forget_cancel(q, id)
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
  tell_value(q, 'failed', id, 'failedReason', reason, EVENT_BYTES, 'prev', previous)
end

local function tell_if_drained(q)
  if call('EXISTS', q.base .. 'wait', q.base .. 'active', q.base .. 'prioritized', q.base .. 'delayed') == 0 then
    tell(q, 'drained')
  end
end
