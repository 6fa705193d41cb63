-- The queue that a script works on: its keys, its settings, and what is owed at the end.
--
-- KEYS[1] is the beginning of all keys of the queue, "prefix:name:". ARGV[1] is the request, packed.
-- A script may reach other queues, too, by way of a job's parent; `close_all` settles with each.
local call = redis.call
local request = cmsgpack.unpack(ARGV[1])
local queues = {}

-- A number as a whole one from 0 to most; 0 for what is none. Anybody may have written anything where
-- this is read, and a command that does not take a number ends the script in the middle of its work.
local MOST = 9007199254740991 -- 2^53 - 1: up to here a number is exact
local function whole(text, most)
  local number = tonumber(text)
  if not number or not (number > 0) then
    return 0
  end
  return math.floor(math.min(number, most or MOST))
end

-- The same for a setting: nil if it is none, or less than none.
local function limit(text)
  local number = tonumber(text)
  return number and number >= 0 and whole(number) or nil
end

local function priority_of(text)
  return whole(text, 2097151)
end

-- What a reading command answers, {} where the key is of another type than the command is for: then
-- it is not what it should be, and so is taken for missing.
local function read(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then
    return answer
  elseif string.find(answer.err, 'WRONGTYPE', 1, true) then
    return {}
  end
  return call(command, key, ...) -- fails as it did before
end

-- Fields of a hash; nil or false where there are none.
local function read_fields(key, ...)
  return read('HMGET', key, ...)
end

local function read_field(key, field)
  return read_fields(key, field)[1]
end

-- What a job's end means to other jobs, and what a scheduler wants, is read from keys and texts that
-- others wrote. If that fails, the job itself must be settled all the same, and those beside it.
local troubles = {}
local function attempt(id, ...)
  local ok, problem = pcall(...)
  if not ok then
    problem = type(problem) == 'table' and problem.err or tostring(problem)
    redis.log(redis.LOG_WARNING, 'hasten: job ' .. id .. ' of ' .. KEYS[1] .. ' ' .. problem)
    troubles[#troubles + 1] = { id, problem }
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
      told = false, -- the id of the first event that was written
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

-- Redis does not undo what a script wrote before it failed. Where the disk or a replica refuses
-- writes, it has to be refused here, before the first of them. Memory that is full refuses only what
-- may take more of it, if that comes first; and what moves or deletes jobs has to go on, for it is
-- what makes room. So this deletes a key that there never is.
local function begin_writing(q)
  call('DEL', q.base .. 'hasten:none')
end

local function tell(q, ...)
  local id = call('XADD', q.events, '*', 'event', ...)
  q.told = q.told or id
  return id
end

local function server_time() -- in ms
  local now = call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- An event with a value: a result, a reason, progress. The list `hasten:large` has the large ones, oldest
-- first: "id total", the total being the bytes of all large values up to this one.
local EVENT_BYTES = 33554432 -- how much large values may take
local VALUE_BYTES = 65536 -- how much a value may take that its job has, too
local LARGE = 1024

local function total_of(large)
  return tonumber(string.match(large or '', ' (%d+)$')) or 0
end

-- A value of more than `most` bytes stays out of the event, which has its size instead. The field is there
-- nevertheless: BullMQ's QueueEvents ends at one that is no JSON.
local function tell_value(q, kind, job_id, field, value, most, ...)
  if #value > most then
    tell(q, kind, 'jobId', job_id, field, 'null', 'hasten:omitted', #value, ...)
    return
  end
  local id = tell(q, kind, 'jobId', job_id, field, value, ...)
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

-- Deletes the oldest events where there are more bytes of large values than may be; but none that this
-- script wrote, for nobody can have read those.
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

-- A worker that is blocked on the marker is woken by member 0 now, by member 1 at its score.
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
    if q.told then
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

-- A script that answers with more than this leaves the rest to the next call.
local BYTES_AT_ONCE = 4194304

-- Lists of arguments have to stay below the limit of Lua's stack.
local function in_portions(command, key, members)
  for first = 1, #members, 1000 do
    call(command, key, unpack(members, first, math.min(first + 999, #members)))
  end
end
