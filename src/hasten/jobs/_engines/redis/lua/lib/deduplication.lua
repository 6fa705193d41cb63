-- uses: adding
-- Deduplication: the key `de:ID` holds the id of the job that owns a deduplication id. It has a time to live if it was
-- taken by throttle. The hash `dn:ID` is the next job, which is added when the owner ends. The id of that owner is in its
-- field `hasten:owner`: the key `de:ID` may be removed by hand. The rules are those of `hasten/jobs/_deduplication.py`.

-- How far a job has come: "unstarted", "started" or "ended". A job that does not exist has ended.
local function stage_of(q, id)
  local job = read_fields(q.base .. id, 'name', 'data', 'finishedOn', 'ats')
  if not (job[1] or job[2]) or job[3] then
    return 'ended'
  end
  return whole(job[4]) > 0 and 'started' or 'unstarted'
end

-- Returns the id of the owner, nil if there is none.
local function owner_of(q, deduplication)
  local owner = read('GET', q.base .. 'de:' .. deduplication)
  return type(owner) == 'string' and owner or nil
end

-- Gives a job that has not started new data. With debounce, a delayed job is delayed again: until `quiet` ms from now,
-- but at most until `max_wait` ms after it was added.
local function replace_data(q, owner, settings, data, now)
  local job_key = q.base .. owner
  call('HSET', job_key, 'data', data)
  local score = settings.mode == 'debounce' and call('ZSCORE', q.base .. 'delayed', owner)
  if not score then
    return
  end
  local old_due, latest = due_of(score), whole(read_field(job_key, 'timestamp')) + settings.max_wait
  local due = latest <= now and math.min(old_due, now) or math.min(now + settings.window, latest)
  if due ~= old_due then
    call('ZREM', q.base .. 'delayed', owner)
    call('HSET', job_key, 'delay', math.max(0, due - now))
    delay_until(q, owner, due)
  end
end

-- Decides whether a new job is added. If it is, it owns its deduplication id from now on. Otherwise returns the id of the
-- job of which it is a duplicate. settings are {id, mode, window in ms, max_wait in ms}.
local function take_id_or_find_owner(q, id, settings, name, data, opts, now)
  local deduplication, mode = settings.id, settings.mode
  local owner_key, next_key = q.base .. 'de:' .. deduplication, q.base .. 'dn:' .. deduplication
  local owner = owner_of(q, deduplication)
  local stage = owner and stage_of(q, owner)
  local is_added = not owner
  if owner and (mode == 'unique' or mode == 'throttle') then
    is_added = stage == 'ended' and call('PTTL', owner_key) == -1
  elseif owner then
    is_added = stage == 'ended' or (stage == 'started' and mode == 'debounce')
  end
  if is_added then
    if mode == 'throttle' then
      call('SET', owner_key, id, 'PX', settings.window)
    else
      call('SET', owner_key, id)
    end
    call('DEL', next_key) -- older than this job
    return nil
  end
  if mode == 'debounce' or mode == 'latest' then
    call('PERSIST', owner_key)
    if stage == 'unstarted' then
      replace_data(q, owner, settings, data, now)
    else
      call('DEL', next_key)
      call('HSET', next_key, 'name', name, 'data', data, 'opts', opts, 'hasten:owner', owner)
    end
  end
  emit(q, mode == 'debounce' and 'debounced' or 'deduplicated', 'jobId', owner, 'deduplicationId', deduplication,
    'deduplicatedJobId', id)
  return owner
end

-- Releases the deduplication id of a job that has ended. The next job is added now, unless it waits for another job.
local function end_deduplication(q, id, deduplication, now)
  local owner_key, next_key = q.base .. 'de:' .. deduplication, q.base .. 'dn:' .. deduplication
  local owner = owner_of(q, deduplication)
  local left = call('PTTL', owner_key)
  if left == 0 or (left == -1 and owner == id) then
    call('DEL', owner_key)
  end
  local fields = read_fields(next_key, 'name', 'data', 'opts', 'jid', 'pk', 'pd', 'pdk', 'rjk', 'hasten:owner')
  local awaited = owner or fields[9]
  if not fields[1] or (awaited and awaited ~= id and stage_of(q, awaited) ~= 'ended') then
    return
  end
  local next_id = string.format('%.0f', call('INCR', q.base .. 'id'))
  if fields[4] and call('EXISTS', q.base .. fields[4]) == 0 then
    next_id = fields[4]
  end
  local ok, options = pcall(cjson.decode, fields[3] or '{}')
  if not ok or type(options) ~= 'table' then
    options = {}
  end
  local settings = type(options.de) == 'table' and options.de or {}
  local ttl = whole(settings.ttl)
  if ttl > 0 and not settings.keepLastIfActive then
    call('SET', owner_key, next_id, 'PX', ttl)
  else
    call('SET', owner_key, next_id)
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
  add_to_state(q, next_id, now, delay, priority, options.lifo == true)
  if fields[7] then
    call('SADD', fields[7], q.base .. next_id)
  end
  call('DEL', next_key)
end

-- Releases a deduplication id whose time has not passed, if the job owns it.
local function release_window(q, id, deduplication)
  if owner_of(q, deduplication) == id then
    call('DEL', q.base .. 'de:' .. deduplication)
  end
end

-- Releases the deduplication id that a job owns, with its next job. For jobs that are removed; jobs that retention
-- deletes keep it.
local function release_deduplication(q, id)
  local deduplication = read_field(q.base .. id, 'deid')
  if not deduplication then
    return
  end
  local next_key = q.base .. 'dn:' .. deduplication
  local owner = owner_of(q, deduplication) or read_field(next_key, 'hasten:owner')
  if owner == id then
    call('DEL', q.base .. 'de:' .. deduplication, next_key)
  end
end
