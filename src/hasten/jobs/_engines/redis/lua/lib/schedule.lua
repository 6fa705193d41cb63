-- uses: adding
-- The duty of whoever takes a scheduler's job: to add the next one.

-- When an `every` is due after the iteration that is pending now.
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

-- opts are those of the iteration that was taken. due is nil for an `every`, whose time is found
-- here; the time of a cron pattern is found by the client. Anything that does not fit (the scheduler
-- is gone, the job is not its pending iteration) is not an error: a retry comes by here, too.
local function schedule_next(q, id, scheduler, opts, now, due)
  local pending = call('ZSCORE', q.base .. 'repeat', scheduler)
  local rule = opts['repeat']
  if not pending or type(rule) ~= 'table' or id ~= 'repeat:' .. scheduler .. ':' .. pending then
    return
  end
  local count = whole(rule.count) + 1
  local limit, last = tonumber(rule.limit), tonumber(rule.endDate)
  if (limit and count > limit) or (last and now > last) then
    return
  end
  local record = read_fields(q.base .. 'repeat:' .. scheduler, 'name', 'data', 'every', 'offset')
  local every = tonumber(record[3]) or tonumber(rule.every)
  if not due then
    if not every then
      return
    end
    if whole(every) == 0 then
      error('its scheduler ' .. scheduler .. ' repeats every ' .. tostring(every) .. ' ms: expected 1 or more', 0)
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
  rule.count = count
  local text_of_opts = cjson.encode(opts) -- before the first write: it fails for infinite numbers
  if call('EXISTS', q.base .. next_id) == 1 then
    tell(q, 'duplicated', 'jobId', next_id)
    return
  end
  call('ZADD', q.base .. 'repeat', text, scheduler)
  call('HINCRBY', q.base .. 'repeat:' .. scheduler, 'ic', 1)
  call('INCR', q.base .. 'id')
  local priority = priority_of(opts.priority)
  store(q, next_id, record[1] or scheduler, record[2] or '{}', text_of_opts, now, delay, priority,
    'rjk', scheduler)
  place(q, next_id, now, delay, priority, opts.lifo == true)
end
