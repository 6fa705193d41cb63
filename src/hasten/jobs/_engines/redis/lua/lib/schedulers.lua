-- uses: adding
-- Job schedulers: the claim of a scheduler's job adds the scheduler's next job.

-- Returns when the next job of a scheduler that repeats every `every` ms is due. pending is the due time of its current
-- job.
local function next_every(every, offset, pending, now)
  local due = pending + every
  if due < now then
    due = math.floor(now / every) * every + offset
    if due <= now then
      due = due + every
    end
  end
  return due
end

-- Whether the pending job of a scheduler is its last one. rule is the option `repeat` of that job.
local function is_last_run(rule, now)
  local limit, last = tonumber(rule.limit), tonumber(rule.endDate)
  return (limit and whole(rule.count) + 1 > limit) or (last and now > last)
end

-- Adds the next job of a scheduler. opts are the options of the job that was claimed. due is the time that the client
-- has computed from a cron pattern, nil for a scheduler with `every`. Does nothing if the scheduler was deleted, or if
-- the job is not its pending one, as in a retry.
local function schedule_next(q, id, scheduler, opts, now, due)
  local pending = call('ZSCORE', q.base .. 'repeat', scheduler)
  local rule = opts['repeat']
  if not pending or type(rule) ~= 'table' or id ~= 'repeat:' .. scheduler .. ':' .. pending then
    return
  end
  if is_last_run(rule, now) then
    return
  end
  local record = read_fields(q.base .. 'repeat:' .. scheduler, 'name', 'data', 'every', 'offset')
  local every = tonumber(record[3]) or tonumber(rule.every)
  if not due then
    if not every then
      return
    end
    if whole(every) == 0 then
      error('its scheduler ' .. scheduler .. ' repeats every ' .. tostring(every) .. ' ms: must be at least 1 ms', 0)
    end
    due = next_every(whole(every), whole(record[4]), tonumber(pending), now)
  end
  local text = string.format('%.0f', due)
  local next_id = 'repeat:' .. scheduler .. ':' .. text
  local delay = math.max(0, due - now)
  opts.jobId, opts.delay, opts.timestamp = next_id, delay, now
  if not every then
    opts.prevMillis = due
  end
  rule.count = whole(rule.count) + 1
  local text_of_opts = cjson.encode(opts) -- before the first write, because it fails for infinite numbers
  if call('EXISTS', q.base .. next_id) == 1 then
    emit(q, 'duplicated', 'jobId', next_id)
    return
  end
  call('ZADD', q.base .. 'repeat', text, scheduler)
  call('HINCRBY', q.base .. 'repeat:' .. scheduler, 'ic', 1)
  call('INCR', q.base .. 'id')
  local priority = priority_of(opts.priority)
  store(q, next_id, record[1] or scheduler, record[2] or '{}', text_of_opts, now, delay, priority,
    'rjk', scheduler)
  add_to_state(q, next_id, now, delay, priority, opts.lifo == true)
end
