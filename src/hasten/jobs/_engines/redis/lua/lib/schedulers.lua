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

-- Adds the job of a scheduler for a slot, in ms, which becomes its pending job. due is when the job is due, opts are its
-- options, count is 1 if the job counts as a further one, else 0. Returns whether there was no job for the slot.
local function add_run(q, scheduler, slot, due, opts, now, count)
  local text = string.format('%.0f', slot)
  local id = 'repeat:' .. scheduler .. ':' .. text
  local delay = math.max(0, due - now)
  local record = read_fields(q.base .. 'repeat:' .. scheduler, 'name', 'data')
  opts.jobId, opts.delay, opts.timestamp = id, delay, now
  if opts['repeat'].pattern then
    opts.prevMillis = slot
  end
  local text_of_opts = cjson.encode(opts) -- before the first write, because it fails for infinite numbers
  if call('EXISTS', q.base .. id) == 1 then
    return false
  end
  call('ZADD', q.base .. 'repeat', text, scheduler)
  call('HDEL', q.base .. 'hasten:paused', scheduler) -- left by a pause that an upsert in Node has ended
  call('HINCRBY', q.base .. 'repeat:' .. scheduler, 'ic', count)
  call('INCR', q.base .. 'id')
  local priority = priority_of(opts.priority)
  store(q, id, record[1] or scheduler, record[2] or '{}', text_of_opts, now, delay, priority, 'rjk', scheduler)
  add_to_state(q, id, now, delay, priority, opts.lifo == true)
  return true
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
  if not due then
    local record = read_fields(q.base .. 'repeat:' .. scheduler, 'every', 'offset')
    local every = tonumber(record[1]) or tonumber(rule.every)
    if not every then
      return
    end
    if whole(every) == 0 then
      error('its scheduler ' .. scheduler .. ' repeats every ' .. tostring(every) .. ' ms: must be at least 1 ms', 0)
    end
    due = next_every(whole(every), whole(record[2]), tonumber(pending), now)
  end
  local last = tonumber(rule.endDate)
  if last and due > last then
    return -- BullMQ adds this job nevertheless
  end
  rule.count = whole(rule.count) + 1
  if not add_run(q, scheduler, due, due, opts, now, 1) then
    emit(q, 'duplicated', 'jobId', 'repeat:' .. scheduler .. ':' .. string.format('%.0f', due))
  end
end
