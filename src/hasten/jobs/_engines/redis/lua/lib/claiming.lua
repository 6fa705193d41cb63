-- uses: schedulers
-- Claiming: moves ready jobs to `active` and leases them (`claim_jobs`).
--
-- The argument claim is {count, token, worker, lease in ms, {token of an orphaned claim, …}, whether the client can
-- parse cron patterns}. `claim_jobs` returns four values:
--   the jobs, as arrays in the order of `JobRecord`'s fields up to `worker`
--   when the next job becomes ready, in ms, or false
--   the claimed jobs of schedulers, {id, scheduler, options}: the client computes their next run. Those that hasten has
--   stored are decided on by the script start_runs. The others have cron patterns.
--   the ids of skipped jobs, which only a worker that can parse cron patterns may run
local NONE = cjson.null

-- Returns for how many ms the queue's rate limit blocks claims, and how many jobs may start before the limit is
-- reached.
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

-- Counts started jobs for the rate limit. The first one in a window starts the window.
local function use_tokens(q, count)
  if q.max and count > 0 and call('INCRBY', q.base .. 'limiter', count) == count then
    call('PEXPIRE', q.base .. 'limiter', q.window)
  end
end

-- Moves the ids of up to count ready jobs to `active`, and returns them in the order of claiming.
local function take_ready_ids(q, count)
  local ids = {}
  while #ids < count do
    local portion = call('RPOP', q.base .. 'wait', math.min(count - #ids, 1000))
    if not portion or #portion == 0 then
      break
    end
    for _, id in ipairs(portion) do
      if string.sub(id, 1, 2) ~= '0:' then -- not a job: a marker of an old BullMQ version, or PURGED
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

-- Returns the option `repeat` of a job if it has a cron pattern, else false or nil.
local function cron_rule_of(opts)
  local ok, options = pcall(cjson.decode, opts or '{}')
  local rule = ok and type(options) == 'table' and options['repeat']
  return type(rule) == 'table' and rule.pattern and rule
end

-- The client that claims a job of a cron scheduler must compute the scheduler's next run. If a client that cannot parse
-- cron patterns claimed the pending run, the schedule would end. Such a job is delayed instead, and left to another
-- worker. A job that its worker would fail without running it (`defa`) is claimed nevertheless.
local SKIPPED_MS = 5000 -- how long a skipped job is delayed
local MOST_SKIPPED = 250 -- how many jobs one call skips

local function is_for_others(q, id, now)
  local job = read_fields(q.base .. id, 'opts', 'rjk', 'defa')
  if not job[2] or job[3] or not is_pending_run(q, id) then
    return false
  end
  local rule = cron_rule_of(job[1])
  return rule and not is_last_run(rule, now)
end

-- Delays a job that was just moved to `active`.
local function skip(q, id, now)
  call('LREM', q.base .. 'active', 1, id)
  call('HSET', q.base .. id, 'delay', SKIPPED_MS)
  delay_until(q, id, now + SKIPPED_MS)
end

-- Delays a due job again. Its state stays `delayed`, so no event is emitted.
local function keep_delayed(q, id, now)
  call('HSET', q.base .. id, 'delay', SKIPPED_MS)
  call('ZADD', q.base .. 'delayed', delayed_score(q, now + SKIPPED_MS), id)
  q.delayed = true
end

-- Makes due jobs ready, except those that the client has to skip. Returns the score of the first job that is still
-- delayed.
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

-- Whether the options of a job, as JSON, are those of a scheduler that hasten has stored.
local function has_policy(opts)
  local ok, options = pcall(cjson.decode, opts or '{}')
  local ours = ok and type(options) == 'table' and options.hasten
  return type(ours) == 'table' and type(ours.schedule) == 'table'
end

-- Leases a job in `active`. Returns its record and its scheduler (nil or false without one). Returns nil if the job no
-- longer exists or is skipped. For a job of a scheduler of hasten, start_runs emits "active": it may not run.
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
  if not (job[11] and has_policy(job[3])) then
    emit(q, 'active', 'jobId', id, 'prev', 'waiting')
  end
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

-- Adds the next job of the scheduler of a claimed job. For a cron pattern, and for a scheduler of hasten, it adds to crons
-- what the client needs.
local function schedule_after(q, record, scheduler, now, crons)
  if has_policy(record[5]) then
    crons[#crons + 1] = { record[2], scheduler, record[5] }
    return
  end
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

-- Makes the jobs of orphaned claims ready again: the reply to such a claim was lost, so no worker runs its jobs. Only
-- the newest jobs in `active` are searched, because these claims were made in the last seconds.
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
    for offset, token in ipairs(call('MGET', unpack(locks))) do -- MGET treats a key of another type as missing
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

-- Updates the marker after a claim. The worker that claims has popped the marker. If ready jobs are left, the marker is
-- set again to wake another worker; otherwise it is deleted, so that no worker wakes up for nothing.
local function update_marker(q)
  if call('EXISTS', q.base .. 'wait', q.base .. 'prioritized') > 0 then
    q.ready = true
  else
    q.ready = false
    call('ZREM', q.base .. 'marker', '0')
    q.delayed = true
  end
end
