-- uses: states
-- Flows: parents and their children. A parent leaves `waiting-children` when its last child has finished. The keys of
-- its children are in its set `:dependencies` until they finish, then in `:processed`, `:failed` or `:unsuccessful`.

-- Splits the key of a job, "prefix:queue:id", into the beginning of its queue's keys and its id. An id has no colon,
-- except that of a job of a scheduler, "repeat:scheduler:ms". The prefix and the queue may be or contain "repeat", so
-- the hash of the job tells whether it has a scheduler.
local function split(job_key)
  if string.find(job_key, ':repeat:.+:%d+$') then
    local scheduler = read_field(job_key, 'rjk')
    local ending = scheduler and ':repeat:' .. scheduler .. ':' .. string.match(job_key, '%d+$')
    if ending and #ending < #job_key and string.sub(job_key, -#ending) == ending then
      return string.sub(job_key, 1, -#ending), string.sub(ending, 2)
    end
  end
  return string.match(job_key, '^(.*:)([^:]*)$')
end

-- Moves a parent from `waiting-children` to `delayed` or to the ready jobs.
local function release_parent(parent_key, now)
  local base, id = split(parent_key)
  local fields = read_fields(parent_key, 'name', 'priority', 'delay')
  if not fields[1] or call('ZREM', base .. 'waiting-children', id) == 0 then
    return
  end
  local q = open(base)
  local delay, priority = whole(fields[3]), priority_of(fields[2])
  if delay > 0 then
    call('ZADD', base .. 'delayed', (now + delay) * 4096, id)
    emit(q, 'delayed', 'jobId', id, 'delay', now + delay)
    q.delayed = true
  else
    make_ready(q, id, priority, priority == 0)
    emit_waiting(q, id, 'waiting-children')
  end
end

-- Releases a parent if it waits for no other child.
local function release_if_alone(parent_key, now)
  if call('EXISTS', parent_key .. ':dependencies') == 0 then
    release_parent(parent_key, now)
  end
end

-- Records the result of a completed child in its parent.
local function child_completed(parent_key, job_key, value, now)
  if call('SREM', parent_key .. ':dependencies', job_key) == 1 then
    call('HSET', parent_key .. ':processed', job_key, value)
    release_if_alone(parent_key, now)
  end
end

-- Marks a parent to be failed because of a child, unless it has finished or is marked already. If the parent waits or is
-- delayed, it becomes ready; the worker that claims it then fails it without running it.
local function fail_parent(parent_key, job_key, now)
  call('ZADD', parent_key .. ':unsuccessful', now, job_key)
  local base, id = split(parent_key)
  -- A job that completes in the same script is not in `completed` yet, but has the field `finishedOn`.
  local fields = read_fields(parent_key, 'name', 'data', 'finishedOn')
  if not (fields[1] or fields[2]) or fields[3] then
    return
  end
  call('HSETNX', parent_key, 'defa', 'child ' .. job_key .. ' failed')
  if call('ZSCORE', base .. 'waiting-children', id) then
    release_parent(parent_key, now)
  elseif call('ZREM', base .. 'delayed', id) == 1 then
    call('HSET', parent_key, 'delay', 0)
    local q, priority = open(base), priority_of(read_field(parent_key, 'priority'))
    make_ready(q, id, priority, priority == 0)
    emit_waiting(q, id, 'delayed')
  end
end

-- Applies the failure of a child to its parent. The flags in the hash field `parent` of the child decide what happens:
-- fpof fails the parent, cpof releases it at once, idof and rdof release it after its other children.
local function child_failed(parent_key, parent, job_key, reason, now)
  local ok, policy = pcall(cjson.decode, parent or '{}')
  if not ok or type(policy) ~= 'table' then
    return
  end
  if not (policy.fpof or policy.cpof or policy.idof or policy.rdof) then
    return
  end
  if call('SREM', parent_key .. ':dependencies', job_key) == 0 then
    return
  end
  if policy.fpof then
    fail_parent(parent_key, job_key, now)
  elseif policy.cpof then
    call('HSET', parent_key .. ':failed', job_key, reason)
    release_parent(parent_key, now)
  else
    if policy.idof then
      call('HSET', parent_key .. ':failed', job_key, reason)
    end
    release_if_alone(parent_key, now)
  end
end

-- Removes a deleted child from its parent, which no longer waits for it.
local function unlink(parent_key, job_key)
  if call('SREM', parent_key .. ':dependencies', job_key) == 0 then
    return
  end
  local base, id = split(parent_key)
  if call('EXISTS', parent_key .. ':dependencies') == 0
    and call('ZREM', base .. 'waiting-children', id) == 1 then
    local q = open(base)
    call('HSET', parent_key, 'delay', 0)
    make_ready(q, id, 0, true)
    emit_waiting(q, id, 'waiting-children')
  end
end

-- Adds a finished child that runs again to the children that its parent waits for. from is the state that it leaves.
local function relink(parent_key, job_key, from)
  if call('EXISTS', parent_key) == 0 then
    return
  end
  local removed
  if from == 'completed' then
    removed = call('HDEL', parent_key .. ':processed', job_key)
  else
    removed = call('ZREM', parent_key .. ':unsuccessful', job_key)
    if removed == 0 then
      removed = call('HDEL', parent_key .. ':failed', job_key)
    end
  end
  if removed == 1 then
    call('SADD', parent_key .. ':dependencies', job_key)
  end
end

-- Makes a finished parent that runs again wait for its pending children. A parent with a failed child does not wait: it
-- is marked to be failed. Returns whether it waits.
local function wait_again(q, id, now)
  local job_key = q.base .. id
  local failed = read('ZRANGE', job_key .. ':unsuccessful', 0, 0)[1]
  if failed then
    call('HSET', job_key, 'defa', 'child ' .. failed .. ' failed')
  elseif call('EXISTS', job_key .. ':dependencies') == 1 then
    call('ZADD', q.base .. 'waiting-children', now, id)
    return true
  end
  return false
end
