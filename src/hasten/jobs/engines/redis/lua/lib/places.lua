-- uses: queue
-- Where jobs stand: scores, and the ways into `wait`, `prioritized` and `delayed`.
local CLASS = 4294967296 -- 2^32: the places within one priority

local function delayed_score(q, due)
  local first = due * 4096
  local last = call('ZREVRANGEBYSCORE', q.base .. 'delayed', first + 4095, first, 'WITHSCORES', 'LIMIT', 0, 1)
  if last[2] then
    return math.min(tonumber(last[2]) + 1, first + 4095)
  end
  return first
end

local function delay_until(q, id, due)
  call('ZADD', q.base .. 'delayed', delayed_score(q, due), id)
  tell(q, 'delayed', 'jobId', id, 'delay', due)
  q.delayed = true
end

-- Behind all that wait with this priority, or in front of them.
local function make_ready(q, id, priority, front)
  if priority > 0 then
    local counter = front and 0 or call('INCR', q.base .. 'pc') % CLASS
    call('ZADD', q.base .. 'prioritized', priority * CLASS + counter, id)
  else
    call(front and 'RPUSH' or 'LPUSH', q.base .. 'wait', id)
  end
  q.ready = true
end

local function tell_waiting(q, id, previous)
  if previous then
    tell(q, 'waiting', 'jobId', id, 'prev', previous)
  else
    tell(q, 'waiting', 'jobId', id)
  end
end

-- A promoted job does not honour lifo. Returns the score of the first one that stays delayed.
local function promote_due(q, now)
  local delayed = q.base .. 'delayed'
  local head = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  local due_score = (now + 1) * 4096 - 1
  if not head[2] or tonumber(head[2]) > due_score then
    return head[2]
  end
  local ids = call('ZRANGEBYSCORE', delayed, '-inf', due_score, 'LIMIT', 0, 1000)
  call('ZREM', delayed, unpack(ids))
  for _, id in ipairs(ids) do
    local fields = read_fields(q.base .. id, 'priority', 'name')
    if fields[1] or fields[2] then
      call('HSET', q.base .. id, 'delay', 0)
      make_ready(q, id, priority_of(fields[1]), false)
      tell_waiting(q, id, 'delayed')
    end
  end
  return call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
end

-- When a job with this score in `delayed` is due.
local function due_of(score)
  return whole(tonumber(score) / 4096)
end

-- The state of a job by where its id is, and when it is due, if it is delayed; false if it does not
-- stand in any, or waits: `wait` may be long, and has to be searched.
local FINISHED_FIRST = { 'completed', 'failed' }
local function state_but_waiting(q, id)
  for _, state in ipairs(FINISHED_FIRST) do
    if call('ZSCORE', q.base .. state, id) then
      return state
    end
  end
  local score = call('ZSCORE', q.base .. 'delayed', id)
  if score then
    return 'delayed', due_of(score)
  end
  if call('ZSCORE', q.base .. 'prioritized', id) then
    return 'prioritized'
  end
  if call('LPOS', q.base .. 'active', id) then
    return 'active'
  end
  if call('ZSCORE', q.base .. 'waiting-children', id) then
    return 'waiting-children'
  end
  return false
end

local function state_of(q, id)
  local state, due = state_but_waiting(q, id)
  if not state and (call('LPOS', q.base .. 'wait', id) or call('LPOS', q.base .. 'paused', id)) then
    return 'waiting'
  end
  return state, due
end

local function exists(q, id)
  return call('TYPE', q.base .. id).ok == 'hash'
end

-- Out of the state it was found in. Returns whether it was there.
local function take_out(q, id, state)
  if state == 'waiting' then
    return call('LREM', q.base .. 'wait', 1, id) + call('LREM', q.base .. 'paused', 1, id) > 0
  elseif state == 'active' then
    return call('LREM', q.base .. 'active', -1, id) > 0
  end
  return call('ZREM', q.base .. state, id) > 0
end

-- Whether it is the next run of a scheduler: without that one there would be no other.
local function is_armed(q, id)
  local scheduler = read_field(q.base .. id, 'rjk')
  local pending = scheduler and call('ZSCORE', q.base .. 'repeat', scheduler)
  return pending and id == 'repeat:' .. scheduler .. ':' .. pending
end

local function goes_in_front(opts)
  local ok, options = pcall(cjson.decode, opts or '{}')
  return ok and type(options) == 'table' and options.lifo == true
end
