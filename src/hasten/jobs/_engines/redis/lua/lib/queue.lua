-- The queues that a script changes: their keys, their settings, and the work at the end of the script.
--
-- KEYS[1] is the beginning of all keys of the queue, "prefix:name:". ARGV[1] is the request, packed.
-- A script may change other queues, too, such as the queue of a job's parent; `close_all` completes each of them.
local call = redis.call
local request = cmsgpack.unpack(ARGV[1])
local queues = {}

-- Returns a number as a whole one from 0 to most; 0 if it is no number. Other programs may have stored anything
-- here, and a command that rejects a number ends the script in the middle of its work.
local MOST = 9007199254740991 -- 2^53 - 1: numbers up to here are exact
local function whole(text, most)
  local number = tonumber(text)
  if not number or not (number > 0) then
    return 0
  end
  return math.floor(math.min(number, most or MOST))
end

-- The same for an optional setting: nil if it is no number, or negative.
local function limit(text)
  local number = tonumber(text)
  return number and number >= 0 and whole(number) or nil
end

local function priority_of(text)
  return whole(text, 2097151)
end

-- Runs a read command. Returns {} if the key has another type than the command expects: the key is treated as
-- missing then.
local function read(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then
    return answer
  elseif string.find(answer.err, 'WRONGTYPE', 1, true) then
    return {}
  end
  return call(command, key, ...) -- fails again
end

-- Returns fields of a hash; nil or false for missing ones.
local function read_fields(key, ...)
  return read('HMGET', key, ...)
end

local function read_field(key, field)
  return read_fields(key, field)[1]
end

-- The effects of a job's end on other jobs and schedulers depend on keys and texts of other programs. If such an
-- effect fails, this job and the others of the batch must be settled nevertheless.
local errors = {}
local function attempt(id, ...)
  local ok, problem = pcall(...)
  if not ok then
    problem = type(problem) == 'table' and problem.err or tostring(problem)
    redis.log(redis.LOG_WARNING, 'hasten: job ' .. id .. ' of ' .. KEYS[1] .. ' ' .. problem)
    errors[#errors + 1] = { id, 'an effect on other jobs failed: ' .. problem }
  end
end

local function open(base)
  local q = queues[base]
  if not q then
    local meta = call('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration', 'opts.maxLenEvents')
    local max, window = whole(meta[3]), whole(meta[4])
    q = {
      base = base,
      events = base .. 'events',
      paused = meta[1] ~= false, -- its existence counts, whatever its value
      concurrency = limit(meta[2]),
      max = max > 0 and window > 0 and max, -- a limit without a window is none
      window = window,
      cap = limit(meta[5]),
      first_event = false, -- the id of the first event of this script
      ready = false, -- jobs became ready
      delayed = false, -- jobs became delayed
    }
    queues[base] = q
  end
  return q
end

local function is_blocked(q)
  return q.paused or (q.concurrency ~= nil and call('LLEN', q.base .. 'active') >= q.concurrency)
end

-- Redis does not roll back a script that fails. If the disk or a replica rejects writes, the script has to fail
-- before its first change, so this deletes a key that never exists. DEL is also allowed when the memory is full:
-- scripts that move or delete jobs have to work then, because they free memory.
local function begin_writing(q)
  call('DEL', q.base .. 'hasten:none')
end

local function emit(q, ...)
  local id = call('XADD', q.events, '*', 'event', ...)
  q.first_event = q.first_event or id
  return id
end

local function server_time() -- in ms
  local now = call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- Events with a value: a result, an error, progress. The list `hasten:large` has those with large values, oldest
-- first: "id total", where total is the sum of the bytes of all large values up to this one.
local EVENT_BYTES = 33554432 -- limit for the large values of all events together
local VALUE_BYTES = 65536 -- limit for a value that is stored with its job as well
local LARGE = 1024

local function total_of(large)
  return tonumber(string.match(large or '', ' (%d+)$')) or 0
end

-- A value of more than `most` bytes is left out, and the event has its size instead. The field itself is kept:
-- BullMQ's QueueEvents stops at an event whose value is not JSON.
local function emit_value(q, kind, job_id, field, value, most, ...)
  if #value > most then
    emit(q, kind, 'jobId', job_id, field, 'null', 'hasten:omitted', #value, ...)
    return
  end
  local id = emit(q, kind, 'jobId', job_id, field, value, ...)
  if #value > LARGE then
    local key = q.base .. 'hasten:large'
    if not q.large then
      q.large_before = total_of(call('LINDEX', key, -1))
      q.large = q.large_before
    end
    q.large = q.large + #value
    call('RPUSH', key, string.format('%s %.0f', id, q.large))
  end
end

-- Deletes the oldest events if the large values exceed the limit, but no event of this script: nobody can have
-- read those.
local function trim_large(q)
  local key = q.base .. 'hasten:large'
  local first, last = call('LINDEX', key, 0), nil
  while first and q.large_before - total_of(first) >= EVENT_BYTES do
    last = call('LPOP', key)
    first = call('LINDEX', key, 0)
  end
  if last then
    local ms, number = string.match(last, '^(%d+)-(%d+) ')
    call('XTRIM', q.events, 'MINID', '~', string.format('%s-%.0f', ms, number + 1))
  end
end

-- Workers block on the marker: member 0 wakes one now, the score of member 1 tells when the next job is due.
local function wake(q)
  if not is_blocked(q) then
    call('ZADD', q.base .. 'marker', 0, '0')
  end
end

local function wake_when_due(q)
  local head = call('ZRANGE', q.base .. 'delayed', 0, 0, 'WITHSCORES')
  if head[2] then
    call('ZADD', q.base .. 'marker', tonumber(head[2]) / 4096, '1')
  end
end

local function close_all()
  for _, q in pairs(queues) do
    if q.ready then
      wake(q)
    end
    if q.delayed then
      wake_when_due(q)
    end
    if q.first_event then
      if not q.cap then
        q.cap = 10000
        call('HSET', q.base .. 'meta', 'opts.maxLenEvents', q.cap)
      end
      call('XTRIM', q.events, 'MAXLEN', '~', q.cap)
      if q.large then
        trim_large(q)
      end
    end
  end
end

-- A script that has read more bytes than this returns, and its caller calls it again for the rest.
local BYTES_AT_ONCE = 4194304

-- Runs a command for many members, in calls that stay below the limit of Lua's stack.
local function in_portions(command, key, members)
  for first = 1, #members, 1000 do
    call(command, key, unpack(members, first, math.min(first + 999, #members)))
  end
end
