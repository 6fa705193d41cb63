-- uses: states
-- page: return a page of the jobs in one state.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {state: the name of its key, first: the index of the first job, from 0, count, newest_first}
-- Returns {{{id, due in ms or false, {field, value, …}}, …}, how many ids were handled, 1 if no further ids follow}. If
-- the jobs are large, fewer than count ids are handled.
local base, state = KEYS[1], request.state
local key = base .. state
local first, last = request.first, request.first + request.count - 1
local ids
if state ~= 'wait' and state ~= 'active' then
  ids = call(request.newest_first and 'ZREVRANGE' or 'ZRANGE', key, first, last)
elseif request.newest_first then
  ids = call('LRANGE', key, first, last)
else -- the next job to be claimed, or the first started, is at the right end
  local from_right = call('LRANGE', key, -last - 1, -first - 1)
  ids = {}
  for index = #from_right, 1, -1 do
    ids[#ids + 1] = from_right[index]
  end
end
local found, looked, read_bytes = {}, 0, 0
for index, id in ipairs(ids) do
  local fields = read('HGETALL', base .. id)
  if #fields > 0 then
    local due = state == 'delayed' and due_of(call('ZSCORE', key, id))
    found[#found + 1] = { id, due or false, fields }
    for place = 2, #fields, 2 do
      read_bytes = read_bytes + #fields[place]
    end
  end
  looked = index
  if read_bytes >= BYTES_AT_ONCE then
    break
  end
end
return { found, looked, #ids < request.count and looked == #ids and 1 or 0 }
