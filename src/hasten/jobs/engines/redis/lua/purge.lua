-- uses: deleting
-- purge: delete jobs in one state. The pending iterations of schedulers are spared.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {state: the name of its key, before in ms or nil, portion, skip, oldest}
--         With oldest: those that are the oldest of all, portion of them at most. To find them takes
--         a look at every job in the state. Without: a portion is looked at, from where they stand
--         first, behind the first skip ones, and deleted as far as it may be.
-- Returns {the ids that are gone, how many were looked at and left}.
local q = open(KEYS[1])
local key, before, portion, skip = q.base .. request.state, request.before, request.portion, request.skip
local is_finished = request.state == 'completed' or request.state == 'failed'
local is_list = request.state == 'wait' or request.state == 'paused' or request.state == 'active'

-- In the order in which they would be taken, or have finished; last is -1 for all.
local function ids_from(first, last)
  if not is_list then
    return call('ZRANGE', key, first, last)
  end
  local from_right = call('LRANGE', key, last < 0 and 0 or -last - 1, -first - 1)
  local ids = {}
  for index = #from_right, 1, -1 do
    ids[#ids + 1] = from_right[index]
  end
  return ids
end

local armed
local function is_armed(id)
  if not armed then
    armed = {}
    local schedulers = call('ZRANGE', q.base .. 'repeat', 0, -1, 'WITHSCORES')
    for index = 1, #schedulers, 2 do
      armed['repeat:' .. schedulers[index] .. ':' .. schedulers[index + 1]] = true
    end
  end
  return armed[id]
end

local function age_of(id)
  if is_finished then
    return whole(call('ZSCORE', key, id))
  end
  return whole(read_field(q.base .. id, 'timestamp'))
end

local function choose(ids)
  local chosen, ages, left = {}, {}, 0
  for place, id in ipairs(ids) do
    local age = (before or request.oldest) and age_of(id)
    if is_armed(id) or (before and age > before) then
      left = left + 1
    else
      chosen[#chosen + 1] = id
      ages[id] = { age, place }
    end
  end
  return chosen, ages, left
end

local function oldest_of_all()
  if is_finished then
    return call('ZRANGEBYSCORE', key, '-inf', before or '+inf', 'LIMIT', 0, portion)
  end
  local chosen, ages = choose(ids_from(0, -1))
  table.sort(chosen, function(a, b)
    local one, other = ages[a], ages[b]
    if one[1] ~= other[1] then
      return one[1] < other[1]
    end
    return one[2] < other[2]
  end)
  return { unpack(chosen, 1, math.min(#chosen, portion)) }
end

begin_writing(q)
local purged, left
if request.oldest then
  purged, left = oldest_of_all(), 0
else
  local chosen, _, spared = choose(ids_from(skip, skip + portion - 1))
  purged, left = chosen, spared
end
if not is_list then
  in_portions('ZREM', key, purged)
elseif skip == 0 and left == 0 and not request.oldest then
  call('LTRIM', key, 0, -#purged - 1)
else
  for _, id in ipairs(purged) do
    call('LREM', key, -1, id)
  end
end
for _, id in ipairs(purged) do
  release_deduplication(q, id)
  if request.state == 'active' then
    call('DEL', q.base .. id .. ':lock')
  end
  delete_job(q, id)
end
close_all()
return { purged, left }
