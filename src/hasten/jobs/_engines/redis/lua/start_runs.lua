-- uses: schedulers schedule_states deleting
-- start_runs: decide whether claimed jobs of schedulers run now, and add the next jobs of these schedulers.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, runs = {{id, scheduler, token, plan or false}, …}}
--         A plan is {next slot or false, by how many ms its job is delayed after the slot, drops: whether the claimed job
--         must not run, because its slot was missed, passed: how many slots are left out before the next one, caught_up:
--         how many missed slots in a row got a run, overlap: "allow", "skip" or "queue"}. It is for the pending job of a
--         scheduler.
-- Returns for each run {what happens, options or false, overlaps: 1 if an earlier run has not finished}. What happens is
--         "run"      the job runs, with these options
--         "dropped"  the job was deleted
--         "held"     the job was delayed: it becomes ready when the earlier runs have ended
--         "taken"    nothing: a job for the next slot exists
--         "lost"     nothing: the lease is lost
--         "failed"   the job runs. The second value is the error because of which no next job may have been added.
local HELD_MS = 5000 -- how long a job is held at a time. If a worker of BullMQ ends the earlier run, it is not notified.
local q = open(KEYS[1])
local now = request.now

local function leave_active(id)
  call('LREM', q.base .. 'active', 1, id)
  call('DEL', q.base .. id .. ':lock')
  call('SREM', q.base .. 'stalled', id)
end

local function hold(id, scheduler, own, slot)
  leave_active(id)
  call('HDEL', q.base .. id, 'processedOn', 'pb')
  call('HINCRBY', q.base .. id, 'ats', -1)
  call('HSET', q.base .. id, 'delay', HELD_MS)
  delay_until(q, id, now + HELD_MS)
  own.held = tonumber(slot)
  save_schedule(q, scheduler, own)
end

-- Adds to runs those that a worker of BullMQ has claimed, which does not store them as hasten's workers do.
local function with_active_runs(runs, scheduler, except)
  local known = { [except] = true }
  for _, id in ipairs(runs) do
    known[id] = true
  end
  local prefix = 'repeat:' .. scheduler .. ':'
  for _, id in ipairs(read('LRANGE', q.base .. 'active', 0, -1)) do
    if not known[id] and string.sub(id, 1, #prefix) == prefix then
      with_run(runs, id)
    end
  end
  return runs
end

local function begin(id)
  emit(q, 'active', 'jobId', id, 'prev', 'waiting')
end

local function start(run)
  local id, scheduler, token, plan = unpack(run, 1, 4)
  if read('GET', q.base .. id .. ':lock') ~= token then
    return { 'lost', false, 0 }
  end
  if not plan or not is_pending_run(q, id) then
    begin(id)
    return { 'run', false, 0 }
  end
  local next_slot, jitter, drops, passed, caught_up, overlap = unpack(plan, 1, 6)
  local slot = call('ZSCORE', q.base .. 'repeat', scheduler)
  local record = read_fields(q.base .. 'repeat:' .. scheduler, 'ic', 'limit')
  local job = read_fields(q.base .. id, 'opts', 'defa')
  local opts = decode_object(job[1])
  local own = state_of_schedule(q, scheduler)
  local runs = unfinished_runs(q, own, id)
  if overlap ~= 'allow' then
    runs = with_active_runs(runs, scheduler, id)
  end
  local overlaps = #runs > 0 and overlap ~= 'allow' and not job[2]
  drops = drops and not job[2]
  if overlaps and overlap == 'queue' and not drops then
    hold(id, scheduler, own, slot)
    return { 'held', false, 1 }
  end
  drops = drops or overlaps

  local count, most = whole(record[1]), limit(record[2])
  if not drops then
    count = count + 1
  end
  if not next_slot or (most and count > most) then
    next_slot = false
  elseif call('EXISTS', q.base .. 'repeat:' .. scheduler .. ':' .. string.format('%.0f', next_slot)) == 1 then
    return { 'taken', false, 0 }
  end
  if type(opts.hasten) ~= 'table' then
    opts.hasten = {}
  end
  if type(opts['repeat']) ~= 'table' then
    opts['repeat'] = {}
  end

  own.held, own.ended = nil, nil
  own.dropped = whole(own.dropped) + passed
  local text = false
  if drops then
    own.dropped = own.dropped + 1
    own.skipped = whole(own.skipped) + passed + 1
    own.runs = runs
    leave_active(id)
    delete_keys(q.base .. id)
    emit(q, 'removed', 'jobId', id, 'prev', 'wait')
  else
    opts.hasten.slot = { tonumber(slot), own.ran or cjson.null, whole(own.skipped) + passed }
    text = cjson.encode(opts)
    call('HSET', q.base .. id, 'opts', text)
    own.skipped = nil
    own.ran = tonumber(slot)
    own.runs = with_run(runs, id)
    begin(id)
  end
  if next_slot then
    opts.hasten.slot = nil
    opts.hasten.caught = caught_up > 0 and caught_up or nil
    opts['repeat'].count = count
    add_run(q, scheduler, next_slot, next_slot + jitter, opts, now, drops and 0 or 1)
  else
    own.ended = true
  end
  save_schedule(q, scheduler, own)
  return { drops and 'dropped' or 'run', text, overlaps and 1 or 0 }
end

begin_writing(q)
local answers = {}
for index, run in ipairs(request.runs) do
  local ok, answer = pcall(start, run) -- the keys of one scheduler may be damaged
  if not ok then
    answer = { 'failed', type(answer) == 'table' and answer.err or tostring(answer), 0 }
  end
  answers[index] = answer
end
close_all()
return answers
