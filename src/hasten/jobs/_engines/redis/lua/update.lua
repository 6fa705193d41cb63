-- uses: states
-- update: store progress and log lines of jobs, and change jobs, in order.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, updates = {…}}, an update is {kind, id, …}:
--         1 progress  value
--         2 log line  line, how many lines to keep
--         3 change    data, priority, delay in ms, progress: false for what stays as it is
-- Returns for each update the state in which the job was found; false if there is no such job. A change is applied
-- completely or not at all: a new delay requires a delayed job, a new priority an unfinished one.
local q = open(KEYS[1])
local now = request.now
local PROGRESS, LOG_LINE, CHANGE = 1, 2, 3

-- If the key of a log has another type, RPUSH would fail after other updates were written. Fail before that.
for _, update in ipairs(request.updates) do
  if update[1] == LOG_LINE then
    local kind = call('TYPE', q.base .. update[2] .. ':logs').ok
    if kind ~= 'list' and kind ~= 'none' then
      return redis.error_reply('WRONGTYPE the log of job ' .. update[2] .. ' is a ' .. kind)
    end
  end
end

-- Returns the state of a job. Nearly all updates are for running jobs, which have a lock, so that is checked first.
local function find(id)
  if not exists(q, id) then
    return false
  elseif call('EXISTS', q.base .. id .. ':lock') == 1 then
    return 'active'
  end
  return state_of(q, id)
end

local function set_progress(id, value)
  call('HSET', q.base .. id, 'progress', value)
  emit_value(q, 'progress', id, 'data', value, VALUE_BYTES)
end

local function change(id, state, data, priority, delay, progress)
  local is_finished = state == 'completed' or state == 'failed'
  if (delay and state ~= 'delayed') or (priority and is_finished) then
    return
  end
  if data then
    call('HSET', q.base .. id, 'data', data)
  end
  if priority then
    call('HSET', q.base .. id, 'priority', priority)
    if state == 'waiting' or state == 'prioritized' then
      remove_from_state(q, id, state)
      make_ready(q, id, priority, false)
    end
  end
  if delay then
    call('HSET', q.base .. id, 'delay', delay)
    remove_from_state(q, id, state)
    delay_until(q, id, now + delay)
  end
  if progress then
    set_progress(id, progress)
  end
end

begin_writing(q)
local answers = {}
for index, update in ipairs(request.updates) do
  local kind, id = update[1], update[2]
  local state = find(id)
  answers[index] = state
  if not state then
    -- the job no longer exists
  elseif kind == PROGRESS then
    set_progress(id, update[3])
  elseif kind == LOG_LINE then
    call('RPUSH', q.base .. id .. ':logs', update[3])
    call('LTRIM', q.base .. id .. ':logs', -update[4], -1)
  elseif kind == CHANGE then
    change(id, state, unpack(update, 3, 6))
  end
end
close_all()
return answers
