-- limit: apply a batch of rate limit operations in order: hit, settle, peek, reset, block.
--
-- KEYS  all keys of the operations, each once; operations refer to them by their index
-- ARGV  1 {now, linger, rules, operations}, packed with MessagePack:
--   now       µs since the epoch; false for the time of this server
--   linger    the minimum time to live of a key, in ms: 0 unless a test sets now
--   rules     a list of {kind, limit, window, capacity, interval, tolerance, run, life}: _rules.py
--   operations
--             {1, group, …}                    hit; a group is {key, rule, cost, flags, block, …}
--             {2, key, rule, at, cost, keep}   settle
--             {3, key, rule, cost, …}          peek
--             {4, key}                         reset
--             {5, key, for}                    block
--   flags     1 counted later, 2 forced, 4 shadow
-- Returns a list with one result for each operation, packed. The result of a hit or a peek has five
-- numbers for each check: {flags, remaining, reset, retry, at, …}. Other operations return {}.
--   flags     1 passed, 2 certain
--
-- The algorithms are those of _algorithms.py, which explains the terms. The state of a key has the
-- same numbers, packed: {blocked until, …}, then for "fixed" end, used, in flight; for "gcra" the TAT
-- and runs; for others runs. A run is three numbers: time of its first hit, used, in flight. Times
-- are µs on the clock of this server.
local call = redis.call
local floor, max, min = math.floor, math.max, math.min
local FIXED, SLIDING, CONCURRENCY, GCRA = 1, 2, 3, 4
local IN_FLIGHT_RETRY = 1000000

local argument = cmsgpack.unpack(ARGV[1])
local now, linger, rules, operations = argument[1], argument[2], argument[3], argument[4]
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
for place, r in ipairs(rules) do
  rules[place] = {
    kind = r[1], limit = r[2], window = r[3], capacity = r[4],
    interval = r[5], tolerance = r[6], run = r[7], life = r[8],
    runs_from = r[1] == GCRA and 3 or 2, -- the index of the first run in a state
  }
end

-- States, by the index of their key ---------------------------------------------------------------

local states = {}
local rule_of = {} -- the rules of changed states, which are written; false if the rule is unknown

for first = 1, #KEYS, 1000 do -- unpack() fails for too many values
  local last = min(first + 999, #KEYS)
  for offset, value in ipairs(call('MGET', unpack(KEYS, first, last))) do
    states[first + offset - 1] = value and cmsgpack.unpack(value) or {}
  end
end

local function clear(state, from)
  for place = #state, from, -1 do
    state[place] = nil
  end
end

-- Remove an expired block, window, TAT and runs from a state.
local function drop_expired_parts(key, rule)
  local state = states[key]
  local count = #state
  if count == 0 then
    return state
  end
  if state[1] <= now then
    state[1] = 0
  end
  if rule.kind == FIXED then
    if count > 1 and state[2] <= now then
      clear(state, 2)
    end
  else
    local from = rule.runs_from
    local alive = from
    while alive <= count and state[alive] + rule.life <= now do
      alive = alive + 3
    end
    if alive > from then
      for place = alive, count do
        state[place - alive + from] = state[place]
      end
      clear(state, count - alive + from + 1)
    end
    if rule.kind == GCRA and #state == 2 and state[2] <= now then
      state[2] = nil
    end
  end
  if state[1] == 0 and #state == 1 then
    state[1] = nil
  end
  return state
end

local function sum(state, from)
  local total = 0
  for place = from, #state, 3 do
    total = total + state[place]
  end
  return total
end

-- Decisions ---------------------------------------------------------------------------------------

-- Return the time when enough of the oldest runs have expired to free a cost.
local function find_release_time(rule, state, cost, in_flight_too)
  for place = 2, #state, 3 do
    cost = cost - state[place + 1] + (in_flight_too and 0 or state[place + 2])
    if cost <= 0 then
      return state[place] + rule.life
    end
  end
end

-- Return how long a cost has to wait until it fits, regardless of a block: if all reservations are
-- refunded at once, and if none is. 0, 0 if it fits now.
local function compute_wait_without_block(rule, state, cost)
  if cost > rule.capacity or rule.limit == 0 then
    return rule.window, rule.window
  end
  if #state < 2 then
    return 0, 0
  end
  if rule.kind == FIXED then
    if state[3] + cost <= rule.limit then
      return 0, 0
    end
    local wait = state[2] - now
    return state[3] - state[4] + cost > rule.limit and wait or 0, wait
  end
  if rule.kind == GCRA then
    local certain = max(state[2] - now, 0) + cost * rule.interval - rule.tolerance
    return max(0, certain), max(0, certain + sum(state, 5) * rule.interval)
  end
  local excess = sum(state, 3) + cost - rule.limit
  if excess <= 0 then
    return 0, 0
  end
  local certain_excess = excess - sum(state, 4)
  local wait = find_release_time(rule, state, excess, true) - now
  if certain_excess <= 0 then
    return 0, wait
  end
  return find_release_time(rule, state, certain_excess, false) - now, wait
end

local function compute_wait(rule, state, cost)
  local certain, wait = compute_wait_without_block(rule, state, cost)
  if state[1] and state[1] > now then
    local blocked = state[1] - now
    return max(blocked, certain), max(blocked, wait)
  end
  return certain, wait
end

-- Add a hit to the newest run, or to a new run. Returns the time of the first hit of that run.
local function add_to_runs(rule, state, cost, in_flight)
  local newest = #state - 2
  if newest >= rule.runs_from and now - state[newest] <= rule.run then
    state[newest + 1] = state[newest + 1] + cost
    state[newest + 2] = state[newest + 2] + in_flight
    return state[newest]
  end
  local count = #state
  state[count + 1], state[count + 2], state[count + 3] = now, cost, in_flight
  return now
end

-- Add a cost to a state, or reserve it. Returns the time that identifies the reservation.
local function take(rule, state, cost, later)
  if cost == 0 and not later then
    return 0
  end
  state[1] = state[1] or 0
  local in_flight = later and cost or 0
  if rule.kind == FIXED then
    if not state[2] then
      state[2], state[3], state[4] = now + rule.window, 0, 0
    end
    state[3] = state[3] + cost
    state[4] = state[4] + in_flight
    return state[2]
  end
  if rule.kind == GCRA then
    state[2] = max(state[2] or 0, now)
    if not later then
      state[2] = state[2] + cost * rule.interval
      return 0
    end
  end
  return add_to_runs(rule, state, cost, in_flight)
end

-- Return the remaining cost, and the time until it increases; 0 if nothing is used.
local function remaining_and_reset(rule, state)
  if #state < 2 or rule.limit == 0 then
    return rule.capacity, 0
  end
  if rule.kind == FIXED then
    return max(0, rule.limit - state[3]), state[2] - now
  end
  if rule.kind == GCRA then
    local owed = max(state[2] - now, 0) + sum(state, 5) * rule.interval
    local remaining = max(0, floor((rule.tolerance - owed) / rule.interval))
    return remaining, owed == 0 and 0 or owed - rule.tolerance + (remaining + 1) * rule.interval
  end
  local remaining = max(0, rule.limit - sum(state, 3))
  return remaining, rule.kind == SLIDING and state[2] + rule.life - now or IN_FLIGHT_RETRY
end

-- Outcomes ----------------------------------------------------------------------------------------

local function report(answer, rule, state, certain, wait, at)
  local remaining, reset = remaining_and_reset(rule, state)
  local flags, retry = 1, 0
  if wait > 0 then
    retry = certain > 0 and wait or min(wait, IN_FLIGHT_RETRY)
    if state[1] and state[1] > now then
      remaining, reset = 0, retry
    end
    reset = reset > 0 and min(reset, retry) or retry
    flags = certain == wait and 2 or 0
  end
  local count = #answer
  answer[count + 1], answer[count + 2], answer[count + 3] = flags, remaining, reset
  answer[count + 4], answer[count + 5] = retry, at
end

-- Return one check of a group: its rule, its state, how long it has to wait, and its flags.
local function examine(group, place)
  local rule, flags = rules[group[place + 1]], group[place + 3]
  local state = drop_expired_parts(group[place], rule)
  local certain, wait = compute_wait(rule, state, group[place + 2])
  return {
    rule = rule, state = state, certain = certain, wait = wait,
    later = flags % 2 == 1 or rule.kind == CONCURRENCY,
    forced = flags % 4 >= 2,
    shadow = flags >= 4,
  }
end

local function deny(answer, group, place, examined)
  local cost, for_time = group[place + 2], group[place + 4]
  local rule, state, certain, wait = examined.rule, examined.state, examined.certain, examined.wait
  local is_blocked = state[1] and state[1] > now
  if for_time >= rule.life and certain > 0 and not examined.forced and not is_blocked then
    state[1] = now + for_time
    rule_of[group[place]] = rule
    certain, wait = compute_wait(rule, state, cost)
  end
  report(answer, rule, state, certain, wait, 0)
end

local function accept(answer, group, place, examined)
  local rule, state = examined.rule, examined.state
  local at = take(rule, state, group[place + 2], examined.later)
  rule_of[group[place]] = rule
  report(answer, rule, state, examined.certain, examined.wait, at)
end

-- Decide a group. Returns whether to continue with the next group.
local function hit_group(answer, group)
  local examined, denied, ends = {}, false, false
  for place = 1, #group, 5 do
    local one = examine(group, place)
    examined[place] = one
    if one.wait > 0 and not one.forced then
      denied = true
      ends = ends or not one.shadow
    end
  end
  local decide = denied and deny or accept
  for place = 1, #group, 5 do
    decide(answer, group, place, examined[place])
  end
  return not ends
end

-- Operations --------------------------------------------------------------------------------------

local function hit(operation)
  local answer = {}
  for place = 2, #operation do
    if not hit_group(answer, operation[place]) then
      break
    end
  end
  return answer
end

local function settle_run(state, from, at, cost, keep)
  for place = from, #state, 3 do
    if state[place] == at then
      state[place + 1] = max(0, state[place + 1] - cost + keep)
      state[place + 2] = max(0, state[place + 2] - cost)
      if state[place + 1] == 0 then
        for later = place, #state do
          state[later] = state[later + 3]
        end
      end
      return true
    end
  end
  return false
end

local function settle(operation)
  local key, rule, at = operation[2], rules[operation[3]], operation[4]
  local cost, keep = operation[5], operation[6]
  local state = drop_expired_parts(key, rule)
  if rule.kind == FIXED then
    if state[2] ~= at then
      return {}
    end
    state[3] = max(0, state[3] - cost + keep)
    state[4] = max(0, state[4] - cost)
  else
    local stays = rule.kind == SLIDING and keep or 0
    if not settle_run(state, rule.runs_from, at, cost, stays) then
      return {}
    end
    if rule.kind == GCRA and keep > 0 then
      state[2] = max(state[2], now) + keep * rule.interval
    end
    drop_expired_parts(key, rule)
  end
  rule_of[key] = rule
  return {}
end

local function peek(operation)
  local answer = {}
  for place = 2, #operation, 3 do
    local rule = rules[operation[place + 1]]
    local state = drop_expired_parts(operation[place], rule)
    local certain, wait = compute_wait(rule, state, operation[place + 2])
    report(answer, rule, state, certain, wait, 0)
  end
  return answer
end

local function reset(operation)
  states[operation[2]] = {}
  rule_of[operation[2]] = false
  return {}
end

local function block(operation)
  local key, for_time = operation[2], operation[3]
  local state = states[key]
  if for_time > 0 then
    state[1] = now + for_time
  elseif state[1] then
    state[1] = 0
  end
  rule_of[key] = rule_of[key] or false
  return {}
end

local VERBS = { hit, settle, peek, reset, block }
local answers = {}
for place, operation in ipairs(operations) do
  answers[place] = VERBS[operation[1]](operation)
end

-- Writing -----------------------------------------------------------------------------------------

-- Return the time after which a state has no effect any more.
local function expiry(rule, state)
  local last = state[1]
  if rule.kind == FIXED or rule.kind == GCRA then
    last = max(last, state[2] or 0)
  end
  if rule.kind ~= FIXED and #state >= rule.runs_from then
    last = max(last, state[#state - 2] + rule.life)
  end
  return last
end

for key, rule in pairs(rule_of) do
  local state = states[key]
  if #state == 0 or (#state == 1 and state[1] == 0) then
    call('DEL', KEYS[key])
  else
    local ttl
    if rule then
      ttl = floor((expiry(rule, state) - now) / 1000) + 1
    else -- the rule is unknown: keep the later of the time to live and the end of the block
      ttl = max(floor((state[1] - now) / 1000) + 1, call('PTTL', KEYS[key]))
    end
    call('SET', KEYS[key], cmsgpack.pack(state), 'PX', max(ttl, linger, 1))
  end
end
return cmsgpack.pack(answers)
