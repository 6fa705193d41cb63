-- uses: deleting
-- Removing jobs together with their descendants, each parent before its children.

-- The suffixes of a parent's keys that hold the keys of its children, with the command that reads them.
local CHILDREN = { dependencies = 'SMEMBERS', processed = 'HKEYS', failed = 'HKEYS', unsuccessful = 'ZRANGE' }

-- Returns the keys of the children of a job in the order of the numbers at their ends. That is usually the order in
-- which they are in `wait`, so that each is found there at once.
local function children_of(job_key)
  local found, places = {}, {}
  if call('EXISTS', job_key .. ':dependencies', job_key .. ':processed', job_key .. ':failed',
    job_key .. ':unsuccessful') == 0 then
    return found
  end
  for suffix, command in pairs(CHILDREN) do
    local keys
    if command == 'ZRANGE' then
      keys = read(command, job_key .. ':' .. suffix, 0, -1)
    else
      keys = read(command, job_key .. ':' .. suffix)
    end
    for _, key in ipairs(keys) do
      if split(key) then
        found[#found + 1] = key
        places[key] = tonumber(string.match(key, '%-(%d+)$')) or 0
      end
    end
  end
  table.sort(found, function(a, b)
    local first, second = places[a], places[b]
    return first < second or (first == second and a < b)
  end)
  return found
end

-- Returns the keys of all descendants of a job, each parent before its children.
local function descendants_of(job_key)
  local found, is_known, at = {}, { [job_key] = true }, 0
  local parent = job_key
  while parent do
    for _, key in ipairs(children_of(parent)) do
      if not is_known[key] then
        is_known[key] = true
        found[#found + 1] = key
      end
    end
    at = at + 1
    parent = found[at]
  end
  return found
end

-- Whether one of these jobs has a lock.
local function is_any_running(job_keys)
  local locks = {}
  for index, key in ipairs(job_keys) do
    locks[index] = key .. ':lock'
  end
  for first = 1, #locks, 1000 do
    if call('EXISTS', unpack(locks, first, math.min(first + 999, #locks))) > 0 then
      return true
    end
  end
  return false
end

-- Removes a job that exists, and was found in a state; false if it is in none.
local function remove_job(q, id, state)
  if state then
    remove_from_state(q, id, state)
  end
  release_deduplication(q, id)
  delete_job(q, id)
  if state then
    emit(q, 'removed', 'jobId', id, 'prev', state == 'waiting' and 'wait' or state)
  end
end

-- Removes descendants of deleted jobs, except those that run. Returns the keys that are left for the next script: one
-- script removes at most REMOVED_AT_ONCE, and searches lists only for a limited time.
local REMOVED_AT_ONCE = 250

local function remove_descendants(job_keys)
  local left = {}
  for index, job_key in ipairs(job_keys) do
    if index > REMOVED_AT_ONCE or has_searched_enough() then
      left[#left + 1] = job_key
    else
      local base, id = split(job_key)
      local q = open(base)
      if exists(q, id) and call('EXISTS', job_key .. ':lock') == 0 then
        remove_job(q, id, state_of(q, id))
      end
    end
  end
  return left
end
