-- uses: claiming schedule_states
-- situation: return a job, and what decides whether it runs now.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id, most: up to how many jobs in front of it to count, children: how many children to return}
-- Returns nothing if there is no such job, else {state; due in ms or false; {field, value, …}; 1 if the queue is paused;
-- for how many ms its lease is valid, or false; jobs in front of it or false; for how many ms the rate limit blocks
-- claims; the global concurrency if it is reached, or false; how many children it waits for; their keys; 1 if it waits
-- until an earlier run of its scheduler ends}.
local q, id = open(KEYS[1]), request.id
local state, due
if exists(q, id) then
  state, due = state_of(q, id)
end
if not state then
  return {}
end

-- Jobs are claimed from the right end of `wait`.
local function count_ahead()
  if state == 'prioritized' then
    return call('LLEN', q.base .. 'wait') + (call('ZRANK', q.base .. 'prioritized', id) or 0)
  elseif state == 'waiting' then
    local place = call('LPOS', q.base .. 'wait', id, 'RANK', -1, 'MAXLEN', request.most)
    return place and call('LLEN', q.base .. 'wait') - 1 - place or request.most
  end
  return false
end

local function valid_lease()
  local left = state == 'active' and call('PTTL', q.base .. id .. ':lock')
  return left and left >= 0 and left
end

local function pending_children()
  local key = q.base .. id .. ':dependencies'
  if call('TYPE', key).ok ~= 'set' then
    return 0, {}
  end
  return call('SCARD', key), call('SRANDMEMBER', key, request.children)
end

local function is_held()
  local scheduler = state == 'delayed' and read_field(q.base .. id, 'rjk')
  local held = scheduler and tonumber(state_of_schedule(q, scheduler).held)
  return held and id == 'repeat:' .. scheduler .. ':' .. string.format('%.0f', held)
end

local ahead = count_ahead()
local is_full = q.concurrency and call('LLEN', q.base .. 'active') >= q.concurrency
local pending, children = pending_children()
return {
  state, due or false, call('HGETALL', q.base .. id), q.paused and 1 or 0, valid_lease(),
  ahead and math.min(ahead, request.most), (rate_limit_of(q)), is_full and q.concurrency or false, pending, children,
  is_held() and 1 or 0,
}
