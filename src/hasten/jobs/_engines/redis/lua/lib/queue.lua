-- Access to the queues that a script changes: their keys and settings, their events, and the work at the end of a
-- script (`close_all`).
--
-- KEYS[1] is the beginning of all keys of the queue, "prefix:name:". ARGV[1] is the request, packed as MessagePack.
-- A script may change other queues, too, such as the queue of a job's parent. `close_all` handles all of them.
local call = redis.call
local request = cmsgpack.unpack(ARGV[1])
local queues = {}

-- Converts a stored value to a whole number from 0 to most. A value that is not a number becomes 0. Other programs
-- may have stored any value, and a command that rejects a number would end the script in the middle of its work.
local MOST = 9007199254740991 -- 2^53 - 1: the largest number up to which all whole numbers are exact
local function whole(text, most)
  local number = tonumber(text)
  if not number or not (number > 0) then
    return 0
  end
  return math.floor(math.min(number, most or MOST))
end

-- Converts an optional setting to a whole number. Returns nil if it is missing, negative or not a number.
local function limit(text)
  local number = tonumber(text)
  return number and number >= 0 and whole(number) or nil
end

local function priority_of(text)
  return whole(text, 2097151)
end

-- Runs a read command. If the key has another type than the command expects, it is treated as missing: returns {}.
local function read(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then
    return answer
  elseif string.find(answer.err, 'WRONGTYPE', 1, true) then
    return {}
  end
  return call(command, key, ...) -- raises the error
end

-- Returns the values of these fields of a hash. A missing field is false, or nil if the key is not a hash.
local function read_fields(key, ...)
  return read('HMGET', key, ...)
end

local function read_field(key, field)
  return read_fields(key, field)[1]
end

-- Calls a function that updates the parent, the scheduler or the deduplication of a job. It depends on keys and values
-- that other programs have written. If it fails, the error is logged and collected in `errors`, and the script
-- continues: this job and the others of the batch must be settled nevertheless.
local errors = {} -- {{job id, error}, …}
local function attempt(id, ...)
  local ok, problem = pcall(...)
  if not ok then
    problem = type(problem) == 'table' and problem.err or tostring(problem)
    redis.log(redis.LOG_WARNING, 'hasten: job ' .. id .. ' of ' .. KEYS[1] .. ' ' .. problem)
    errors[#errors + 1] = { id, problem }
  end
end

-- Returns the state of a queue in this script: its settings, and what `close_all` has to do. base is the beginning of
-- the queue's keys.
local function open(base)
  local q = queues[base]
  if not q then
    local meta = call('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration', 'opts.maxLenEvents')
    local max, window = whole(meta[3]), whole(meta[4])
    q = {
      base = base,
      events = base .. 'events',
      paused = meta[1] ~= false, -- paused if the field exists, whatever its value
      concurrency = limit(meta[2]),
      max = max > 0 and window > 0 and max, -- rate limit: jobs per window; false without a limit
      window = window, -- in ms
      cap = limit(meta[5]), -- how many events the stream keeps
      first_event = false, -- the id of the first event that this script emitted
      ready = false, -- this script made jobs ready: `close_all` wakes a worker
      delayed = false, -- this script delayed jobs: `close_all` announces the next due time
    }
    queues[base] = q
  end
  return q
end

-- Whether no job of the queue may be claimed now: it is paused, or its global concurrency is used up.
local function is_blocked(q)
  return q.paused or (q.concurrency ~= nil and call('LLEN', q.base .. 'active') >= q.concurrency)
end

-- Redis does not roll back a script that fails. If the server rejects writes (a full disk, a read-only replica), the
-- script must fail before its first change. Deleting a key that never exists provokes that error. DEL is allowed when
-- the memory is full: scripts that move or delete jobs must work then, because they free memory.
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

-- Events with a value: a result, an error, or progress. The list `hasten:large` has an entry for each event with a
-- large value, oldest first: "ID TOTAL". TOTAL is the sum of the bytes of all large values up to and including this
-- one.
local EVENT_BYTES = 33554432 -- limit for the sum of the large values in the stream
local VALUE_BYTES = 65536 -- limit for one value, if readers can also read it from its job
local LARGE = 1024 -- values of more bytes are large

local function total_of(large)
  return tonumber(string.match(large or '', ' (%d+)$')) or 0
end

-- Emits an event with a value. A value of more than `most` bytes is replaced by null, and the event has its size in
-- `hasten:omitted`. The field itself is kept, because BullMQ's QueueEvents fails on an event whose value is not JSON.
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

-- Deletes the oldest events if the large values exceed EVENT_BYTES. Events of this script are kept, because no reader
-- can have read them yet.
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

-- Workers block on the sorted set `marker`. Member 0 wakes a worker now. The score of member 1 is the time in ms when
-- the next delayed job is due.
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

-- Does the work at the end of a script, for each queue that it opened: wakes workers and trims the events.
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

-- A script that has read more bytes than this returns early. Its caller calls it again for the rest.
local BYTES_AT_ONCE = 4194304

-- Runs a command for many members, at most 1,000 per call: Lua limits the number of arguments.
local function in_portions(command, key, members)
  for first = 1, #members, 1000 do
    call(command, key, unpack(members, first, math.min(first + 999, #members)))
  end
end
