-- uses: places
-- page: a page of the jobs in one state.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {state, first, count, newest_first}: state is the name of its key
-- Returns for each job {id, due in ms or false, {field, value, …}}.
local base, state = KEYS[1], request.state
local key = base .. state
local first, last = request.first, request.first + request.count - 1
local ids
if request.count == 0 then
  return {}
elseif state ~= 'wait' and state ~= 'active' then
  ids = call(request.newest_first and 'ZREVRANGE' or 'ZRANGE', key, first, last)
elseif request.newest_first then
  ids = call('LRANGE', key, first, last)
else -- the next to be taken, or the one that started first, is at the right end
  local from_right = call('LRANGE', key, -last - 1, -first - 1)
  ids = {}
  for index = #from_right, 1, -1 do
    ids[#ids + 1] = from_right[index]
  end
end
local found = {}
for _, id in ipairs(ids) do
  local fields = read('HGETALL', base .. id)
  if #fields > 0 then
    local due = state == 'delayed' and due_of(call('ZSCORE', key, id))
    found[#found + 1] = { id, due or false, fields }
  end
end
return found
