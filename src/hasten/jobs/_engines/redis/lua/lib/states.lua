-- uses: queue
-- The states of jobs: finding the state of a job, and moving jobs into and out of `wait`, `prioritized` and `delayed`.
local CLASS = 4294967296 -- 2^32: the scores of two neighbouring priorities differ by this

-- Returns a score for a job that is due at this time, in ms: due * 4096 plus a counter, which keeps the order of jobs
-- that are due in the same ms.
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
  emit(q, 'delayed', 'jobId', id, 'delay', due)
  q.delayed = true
end

-- Adds a job to the ready jobs: behind all others with the same priority, or in front of them.
local function make_ready(q, id, priority, front)
  if priority > 0 then
    local counter = front and 0 or call('INCR', q.base .. 'pc') % CLASS
    call('ZADD', q.base .. 'prioritized', priority * CLASS + counter, id)
  else
    call(front and 'RPUSH' or 'LPUSH', q.base .. 'wait', id)
  end
  q.ready = true
end

-- Emits "waiting". previous is the state that the job has left, nil for a new job.
local function emit_waiting(q, id, previous)
  if previous then
    emit(q, 'waiting', 'jobId', id, 'prev', previous)
  else
    emit(q, 'waiting', 'jobId', id)
  end
end

-- Makes those delayed jobs ready that are due; their option `lifo` is ignored. The optional function postpone is called with
-- the id of each job of a scheduler; it returns true if it has delayed the job again. Returns the score of the first
-- job that is still delayed.
local PROMOTED_AT_ONCE = 500

local function promote_due(q, now, postpone)
  local delayed = q.base .. 'delayed'
  local head = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  local due_score = (now + 1) * 4096 - 1
  if not head[2] or tonumber(head[2]) > due_score then
    return head[2]
  end
  local ids = call('ZRANGEBYSCORE', delayed, '-inf', due_score, 'LIMIT', 0, PROMOTED_AT_ONCE)
  call('ZREM', delayed, unpack(ids))
  for _, id in ipairs(ids) do
    local fields = read_fields(q.base .. id, 'priority', 'name', 'rjk')
    local is_postponed = postpone and fields[3] and postpone(id)
    if (fields[1] or fields[2]) and not is_postponed then
      call('HSET', q.base .. id, 'delay', 0)
      make_ready(q, id, priority_of(fields[1]), false)
      emit_waiting(q, id, 'delayed')
    end
  end
  return call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
end

-- Returns when a job with this score in `delayed` is due, in ms.
local function due_of(score)
  return whole(tonumber(score) / 4096)
end

-- Returns the state of a job, and its due time if it is delayed; false if it is in no state. The list `wait` may be
-- long and is not searched: a job that is in no other state is assumed to be waiting. If its hash is not that of an
-- unfinished job, it may not be a job at all. Then the job is waiting only if it is found near an end of the list.
local SORTED_STATES = { 'completed', 'failed', 'prioritized', 'waiting-children' }
local SEARCHED_ENDS = 1000

local function is_near_an_end(key, id)
  return call('LPOS', key, id, 'MAXLEN', SEARCHED_ENDS)
    or call('LPOS', key, id, 'RANK', -1, 'MAXLEN', SEARCHED_ENDS)
end

local function state_of(q, id)
  local score = call('ZSCORE', q.base .. 'delayed', id)
  if score then
    return 'delayed', due_of(score)
  end
  for _, state in ipairs(SORTED_STATES) do
    if call('ZSCORE', q.base .. state, id) then
      return state
    end
  end
  local fields = read_fields(q.base .. id, 'timestamp', 'processedOn', 'finishedOn')
  local started = fields[2] or call('EXISTS', q.base .. id .. ':lock') == 1
  if started and call('LPOS', q.base .. 'active', id) then
    return 'active'
  end
  if fields[1] and not fields[3] then
    return 'waiting'
  end
  if is_near_an_end(q.base .. 'wait', id) or is_near_an_end(q.base .. 'paused', id) then
    return 'waiting'
  end
  return false
end

local function exists(q, id)
  return call('TYPE', q.base .. id).ok == 'hash'
end

-- Redis has to search a list to remove an id from it. If ids end with numbers, the search begins at the end that is nearer
-- to the id. `searched` is an upper bound for the number of elements that were compared. A script that removes many
-- jobs returns early once it `has_searched_enough`, and its caller calls it again for the rest.
local MAX_SEARCHED = 200000
local NEAR_AN_END = 100
local searched = 0

local function has_searched_enough()
  return searched >= MAX_SEARCHED
end

local function number_at_end(id)
  return tonumber(string.match(id or '', '%d+$'))
end

local function remove_from_list(key, id)
  local length = call('LLEN', key)
  if length == 0 then
    return 0
  end
  local first, last = call('LINDEX', key, 0), call('LINDEX', key, -1)
  if last == id or first == id then
    call(last == id and 'RPOP' or 'LPOP', key)
    return 1
  end
  local number, newest, oldest = number_at_end(id), number_at_end(first), number_at_end(last)
  local is_old = number and newest and oldest and math.abs(number - oldest) < math.abs(number - newest)
  for _, rank in ipairs(is_old and { -1, 1 } or { 1, -1 }) do
    searched = searched + NEAR_AN_END
    if call('LPOS', key, id, 'RANK', rank, 'MAXLEN', NEAR_AN_END) then
      return call('LREM', key, rank, id)
    end
  end
  searched = searched + length
  return call('LREM', key, is_old and -1 or 1, id)
end

local function is_in_list(key, id)
  searched = searched + call('LLEN', key)
  return call('LPOS', key, id)
end

-- Removes the elements of a list at these places, counted from the right end, lowest place first. They are overwritten
-- with PURGED, which is then removed in a single search from the nearer end.
local PURGED = '0:purged' -- workers skip ids that begin with "0:"

local function remove_places(key, places)
  for _, place in ipairs(places) do
    call('LSET', key, -place, PURGED)
  end
  local is_far = places[1] > call('LLEN', key) / 2
  call('LREM', key, is_far and #places or -#places, PURGED)
end

-- Removes a job from the state in which it was found. Returns whether it was still in that state.
local function remove_from_state(q, id, state)
  if state == 'waiting' then
    return remove_from_list(q.base .. 'wait', id) + remove_from_list(q.base .. 'paused', id) > 0
  elseif state == 'active' then
    return call('LREM', q.base .. 'active', -1, id) > 0
  end
  return call('ZREM', q.base .. state, id) > 0
end

-- Whether the run for this slot has started, as hasten knows: see lib/schedule_states.lua. Otherwise the score of a
-- scheduler is the slot of its pending job, or of the last one if it has ended.
local function has_started(q, scheduler, slot)
  local text = read('HGET', q.base .. 'hasten:schedules', scheduler)
  return type(text) == 'string' and string.find(text, '"ran":' .. slot .. '[,}]') ~= nil
end

-- Whether the job is the pending one of a scheduler. If it was deleted, the scheduler would add no further jobs.
local function is_pending_run(q, id)
  local scheduler = read_field(q.base .. id, 'rjk')
  local pending = scheduler and read('ZSCORE', q.base .. 'repeat', scheduler)
  return type(pending) == 'string' and id == 'repeat:' .. scheduler .. ':' .. pending
    and not has_started(q, scheduler, pending)
end

-- Whether the options of a job, as JSON, have `lifo`.
local function goes_in_front(opts)
  local ok, options = pcall(cjson.decode, opts or '{}')
  return ok and type(options) == 'table' and options.lifo == true
end
