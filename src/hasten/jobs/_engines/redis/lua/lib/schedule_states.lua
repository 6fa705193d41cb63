-- uses: states
-- What hasten knows of a scheduler, in addition to BullMQ's record. The hash `hasten:schedules` has by scheduler a JSON
-- object, whose members may be missing:
--   ran       the slot of the latest run that started, in ms
--   runs      the ids of runs that may not have finished
--   held      the slot whose job waits until these runs end, in ms
--   dropped   how many slots got no run; skipped: how many of them since the latest run started
--   ended     whether the scheduler adds no more jobs
--   declared  whether the scheduler was declared in the code of an application
-- The hash `hasten:paused` has by paused scheduler the fields and values of its record, as a JSON array.
local function text_of_schedule(q, scheduler)
  local text = read('HGET', q.base .. 'hasten:schedules', scheduler)
  return type(text) == 'string' and text
end

local function decode_object(text)
  local ok, found = pcall(cjson.decode, text or '{}')
  return ok and type(found) == 'table' and found or {}
end

local function state_of_schedule(q, scheduler)
  return decode_object(text_of_schedule(q, scheduler))
end

local function save_schedule(q, scheduler, state)
  call('HSET', q.base .. 'hasten:schedules', scheduler, cjson.encode(state))
end

local MOST_RUNS = 100

-- Returns the ids of the runs of a scheduler that have not finished, except for one.
local function unfinished_runs(q, state, except)
  local found = {}
  if type(state.runs) == 'table' then
    for _, id in ipairs(state.runs) do
      if id ~= except and exists(q, id) then
        local is_in = state_of(q, id)
        if is_in and is_in ~= 'completed' and is_in ~= 'failed' then
          found[#found + 1] = id
        end
      end
    end
  end
  return found
end

-- Returns the runs with a further one, without the oldest if they are too many.
local function with_run(runs, id)
  runs[#runs + 1] = id
  if #runs > MOST_RUNS then
    table.remove(runs, 1)
  end
  return runs
end

-- Makes the pending job of a scheduler ready if it was held, and no other run is unfinished. id is a run that ends.
local function run_ended(q, scheduler, id)
  local text = text_of_schedule(q, scheduler)
  if not text or not string.find(text, '"held":', 1, true) then
    return
  end
  local state = decode_object(text)
  if #unfinished_runs(q, state, id) > 0 then
    return
  end
  local slot = call('ZSCORE', q.base .. 'repeat', scheduler)
  local held = state.held
  state.held = nil
  save_schedule(q, scheduler, state)
  local pending = slot and 'repeat:' .. scheduler .. ':' .. slot
  if pending and tonumber(slot) == held and call('ZREM', q.base .. 'delayed', pending) == 1 then
    call('HSET', q.base .. pending, 'delay', 0)
    make_ready(q, pending, priority_of(read_field(q.base .. pending, 'priority')), true)
    emit_waiting(q, pending, 'delayed')
  end
end

-- Deletes the record of a paused scheduler that a program in Node has stored again, which ends the pause. Otherwise the
-- pause would come back if that program removed the scheduler.
local function end_pause(base, scheduler)
  read('HDEL', base .. 'hasten:paused', scheduler)
end

-- Returns the ids of the paused schedulers, in order.
local function paused_schedulers(base)
  local found = {}
  for _, scheduler in ipairs(read('HKEYS', base .. 'hasten:paused')) do
    if type(read('ZSCORE', base .. 'repeat', scheduler)) == 'string' then
      end_pause(base, scheduler)
    else
      found[#found + 1] = scheduler
    end
  end
  table.sort(found)
  return found
end

-- Returns the record of a scheduler: its score in `repeat` (nil if it is paused), the fields and values of its record, and
-- whether it is paused. Returns nil for an unknown scheduler.
local function find_schedule(q, scheduler)
  local slot = read('ZSCORE', q.base .. 'repeat', scheduler)
  if type(slot) == 'string' then
    end_pause(q.base, scheduler)
    return { slot, read('HGETALL', q.base .. 'repeat:' .. scheduler), false }
  end
  local fields = read('HGET', q.base .. 'hasten:paused', scheduler)
  if type(fields) == 'string' then
    return { nil, decode_object(fields), true }
  end
end

-- Returns a text that differs if the record of a scheduler was changed, or its pending job was added or replaced.
local function version_of(found)
  if not found then
    return ''
  end
  local fields = {}
  for index = 1, #found[2], 2 do
    fields[#fields + 1] = #found[2][index] .. ' ' .. found[2][index] .. found[2][index + 1]
  end
  table.sort(fields)
  fields[#fields + 1] = found[1] or 'paused'
  return redis.sha1hex(table.concat(fields, '\n'))
end

-- Returns what clients need of a scheduler: {scheduler, slot or false, fields and values, is paused, version, state of
-- the pending job or false, its due time or false, hasten's JSON or '', 1 if that job is active without a lock}.
local function describe_schedule(q, scheduler, found)
  local id = found[1] and 'repeat:' .. scheduler .. ':' .. found[1]
  local state, due
  if id and exists(q, id) then
    state, due = state_of(q, id)
  end
  return {
    scheduler, found[1] or false, found[2], found[3] and 1 or 0, version_of(found), state or false, due or false,
    text_of_schedule(q, scheduler) or '', state == 'active' and not read('GET', q.base .. id .. ':lock') and 1 or 0,
  }
end

-- Removes the pending job of a scheduler if it is in one of these states. Deletes its keys with delete_keys.
local function remove_pending(q, scheduler, slot, states, delete_keys)
  local id = 'repeat:' .. scheduler .. ':' .. slot
  local state = exists(q, id) and state_of(q, id)
  if state and states[state] then
    remove_from_state(q, id, state)
    delete_keys(q.base .. id)
    emit(q, 'removed', 'jobId', id, 'prev', state == 'waiting' and 'wait' or state)
  end
end
