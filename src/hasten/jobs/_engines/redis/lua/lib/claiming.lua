-- uses: schedulers
-- Claims ready jobs: moves them to active and leases them.
--
-- claim is {count, token, worker, lease in ms, orphans = {token, …}, whether the client can parse cron patterns}.
-- Returns the jobs as arrays in the order of `JobRecord`'s fields up to `worker`; the time before which no other job
-- is ready, or false; the jobs of cron schedulers, {id, scheduler, options}, whose next run the client computes; and
-- the ids of the jobs that are left to other workers.
local NONE = cjson.null

-- Returns for how many ms the queue's rate limit blocks claims, and how many jobs may start until it does.
local function rate_limit_of(q)
  if not q.max then
    return 0, math.huge
  end
  local used = whole(call('GET', q.base .. 'limiter'))
  if used < q.max then
    return 0, q.max - used
  end
  local left = call('PTTL', q.base .. 'limiter')
  if left > 0 then
    return left, 0
  elseif left == 0 then
    call('DEL', q.base .. 'limiter')
  end
  return 0, q.max
end

local function use_tokens(q, count)
  if q.max and count > 0 and call('INCRBY', q.base .. 'limiter', count) == count then
    call('PEXPIRE', q.base .. 'limiter', q.window)
  end
end

-- Moves the next ids to `active`, and returns them.
local function take_ready_ids(q, count)
  local ids = {}
  while #ids < count do
    local portion = call('RPOP', q.base .. 'wait', math.min(count - #ids, 1000))
    if not portion or #portion == 0 then
      break
    end
    for _, id in ipairs(portion) do
      if string.sub(id, 1, 2) ~= '0:' then -- the marker of an old version
        ids[#ids + 1] = id
      end
    end
  end
  while #ids < count do
    local portion = call('ZPOPMIN', q.base .. 'prioritized', math.min(count - #ids, 1000))
    if #portion == 0 then
      call('DEL', q.base .. 'pc')
      break
    end
    for index = 1, #portion, 2 do
      ids[#ids + 1] = portion[index]
    end
  end
  in_portions('LPUSH', q.base .. 'active', ids)
  return ids
end

-- The option `repeat` of a job, if it has a cron pattern.
local function cron_rule_of(opts)
  local ok, options = pcall(cjson.decode, opts or '{}')
  local rule = ok and type(options) == 'table' and options['repeat']
  return type(rule) == 'table' and rule.pattern and rule
end

-- A client without a parser of cron patterns cannot add the next run of such a scheduler. If it ran the pending run,
-- the schedule would end: the job is delayed, for another worker. A job that only has to fail is not.
local SKIPPED_MS = 5000
local MOST_SKIPPED = 250 -- in one call

local function is_for_others(q, id, now)
  local job = read_fields(q.base .. id, 'opts', 'rjk', 'defa')
  if not job[2] or job[3] or not is_pending_run(q, id) then
    return false
  end
  local rule = cron_rule_of(job[1])
  return rule and not is_last_run(rule, now)
end

-- Delays a ready job.
local function skip(q, id, now)
  call('LREM', q.base .. 'active', 1, id)
  call('HSET', q.base .. id, 'delay', SKIPPED_MS)
  delay_until(q, id, now + SKIPPED_MS)
end

-- Delays a due job again. It has been delayed all the time, so this is no event.
local function keep_delayed(q, id, now)
  call('HSET', q.base .. id, 'delay', SKIPPED_MS)
  call('ZADD', q.base .. 'delayed', delayed_score(q, now + SKIPPED_MS), id)
  q.delayed = true
end

-- Makes due jobs ready. Returns the score of the first job that is still delayed.
local function promote_for(q, claim, now, skipped)
  if claim[6] then
    return promote_due(q, now)
  end
  return promote_due(q, now, function(id)
    if not is_for_others(q, id, now) then
      return false
    end
    keep_delayed(q, id, now)
    skipped[#skipped + 1] = id
    return true
  end)
end

-- Leases a job of `active`. Returns its record and its scheduler; nil if it no longer exists or is skipped.
local function lease(q, id, claim, now, skipped)
  local job_key = q.base .. id
  local job = read_fields(job_key, 'name', 'data', 'opts', 'priority', 'delay', 'timestamp', 'atm', 'ats',
    'stc', 'defa', 'rjk')
  if not job[1] and not job[2] then
    call('LREM', q.base .. 'active', 1, id) -- the id of a job that no longer exists
    return nil
  end
  if job[11] and not claim[6] and is_for_others(q, id, now) then
    skip(q, id, now)
    skipped[#skipped + 1] = id
    return nil
  end
  local started = whole(job[8]) + 1
  call('SET', job_key .. ':lock', claim[2], 'PX', claim[4])
  call('HSET', job_key, 'processedOn', now, 'pb', claim[3], 'ats', started)
  emit(q, 'active', 'jobId', id, 'prev', 'waiting')
  return {
    request.queue, -- queue
    id, -- id
    job[1] or '', -- name
    job[2] or '{}', -- data
    job[3] or '{}', -- opts
    'active', -- state
    priority_of(job[4]), -- priority
    whole(job[5]), -- delay_ms
    whole(job[6]), -- created_ms
    whole(job[7]), -- attempts_made
    started, -- attempts_started
    whole(job[9]), -- crashes
    job[10] or NONE, -- deferred_failure
    now, -- started_ms
    claim[3], -- worker
  }, job[11]
end

local function schedule_after(q, record, scheduler, now, crons)
  local ok, opts = pcall(cjson.decode, record[5])
  if not ok or type(opts) ~= 'table' or type(opts['repeat']) ~= 'table' then
    return
  end
  if opts['repeat'].pattern then
    if is_pending_run(q, record[2]) and not is_last_run(opts['repeat'], now) then
      crons[#crons + 1] = { record[2], scheduler, record[5] }
    end
  else
    schedule_next(q, record[2], scheduler, opts, now)
  end
end

-- Orphaned claims: their reply was lost, so no worker runs their jobs. Their jobs are among those that started last,
-- and become ready again.
local NEWEST_STARTED = 5000

local function release_orphans(q, tokens)
  local is_orphaned = {}
  for _, token in ipairs(tokens) do
    is_orphaned[token] = true
  end
  local newest = call('LRANGE', q.base .. 'active', 0, NEWEST_STARTED - 1)
  local held = {}
  for first = 1, #newest, 1000 do
    local locks = {}
    for index = first, math.min(first + 999, #newest) do
      locks[#locks + 1] = q.base .. newest[index] .. ':lock'
    end
    for offset, token in ipairs(call('MGET', unpack(locks))) do -- unlike GET it treats other types as missing
      held[newest[first + offset - 1]] = token
    end
  end
  for _, id in ipairs(newest) do
    local token = held[id]
    if token and is_orphaned[token] then
      call('DEL', q.base .. id .. ':lock')
      call('SREM', q.base .. 'stalled', id)
      call('LREM', q.base .. 'active', 1, id)
      make_ready(q, id, priority_of(read_field(q.base .. id, 'priority')), true)
      emit_waiting(q, id, 'active')
    end
  end
end

local function claim_jobs(q, claim, now)
  local records, crons, skipped = {}, {}, {}
  if #claim[5] > 0 then
    release_orphans(q, claim[5])
  end
  local next_score = promote_for(q, claim, now, skipped)
  local limited, allowed = rate_limit_of(q)
  allowed = math.min(allowed, claim[1])
  if q.concurrency then
    allowed = math.min(allowed, q.concurrency - call('LLEN', q.base .. 'active'))
  end
  if not q.paused and allowed > 0 then
    local tokens, read_bytes, portion, passed_over = 0, 0, 4, 0
    repeat
      local count = math.min(portion, allowed - #records, MOST_SKIPPED - passed_over)
      local ids = take_ready_ids(q, count)
      for _, id in ipairs(ids) do
        local record, scheduler = lease(q, id, claim, now, skipped)
        if record then
          records[#records + 1] = record
          read_bytes = read_bytes + #record[4]
          tokens = tokens + (record[13] == NONE and 1 or 0)
          if scheduler then
            attempt(id, schedule_after, q, record, scheduler, now, crons)
            next_score = nil
          end
        else
          passed_over = passed_over + 1
          next_score = nil
        end
      end
      portion = portion * 4
      local is_full = #records >= allowed or passed_over >= MOST_SKIPPED or read_bytes >= BYTES_AT_ONCE
    until is_full or #ids < count
    use_tokens(q, tokens)
  end
  local next_due = false
  if #records < claim[1] then
    next_score = next_score or call('ZRANGE', q.base .. 'delayed', 0, 0, 'WITHSCORES')[2]
    next_due = next_score and due_of(next_score) or false
    if limited > 0 then
      next_due = math.min(next_due or math.huge, now + limited)
    end
  end
  return records, next_due, crons, skipped
end

-- A worker that claims jobs has consumed a marker. It sets the marker again if jobs are left, and deletes a marker
-- that would wake another worker in vain.
local function update_marker(q)
  if call('EXISTS', q.base .. 'wait', q.base .. 'prioritized') > 0 then
    q.ready = true
  else
    q.ready = false
    call('ZREM', q.base .. 'marker', '0')
    q.delayed = true
  end
end
