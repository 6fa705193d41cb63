-- uses: deleting
-- purge: delete jobs in one state, except the pending jobs of schedulers. One call checks a limited number of jobs.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {state: the name of its key, before in ms or nil, skip, portion, limit}
--         The call checks `portion` jobs after the first `skip` jobs, in the order in which they would be claimed or
--         have finished. It deletes at most `limit` jobs that finished, or if unfinished were added, until `before`.
-- Returns {the deleted ids, how many of the checked jobs were kept, 1 if there were fewer than `portion` jobs}.
local q = open(KEYS[1])
local key, before, skip, portion = q.base .. request.state, request.before, request.skip, request.portion
local is_finished = request.state == 'completed' or request.state == 'failed'
local is_list = request.state == 'wait' or request.state == 'paused' or request.state == 'active'

-- Jobs of a list are claimed from its right end.
local function ids_in_portion()
  if is_finished then
    return call('ZRANGEBYSCORE', key, '-inf', before or '+inf', 'LIMIT', skip, portion)
  elseif not is_list then
    return call('ZRANGE', key, skip, skip + portion - 1)
  end
  local from_right = call('LRANGE', key, -skip - portion, -skip - 1)
  local ids = {}
  for index = #from_right, 1, -1 do
    ids[#ids + 1] = from_right[index]
  end
  return ids
end

local function is_kept(id)
  if string.sub(id, 1, 7) == 'repeat:' and is_pending_run(q, id) then
    return true
  end
  return before and not is_finished and whole(read_field(q.base .. id, 'timestamp')) > before
end

-- Returns the ids to delete, their places, and how many ids before the last of them are kept.
local function choose(ids)
  local chosen, places, kept = {}, {}, 0
  for place, id in ipairs(ids) do
    if #chosen == request.limit then
      break
    elseif is_kept(id) then
      kept = kept + 1
    else
      chosen[#chosen + 1] = id
      places[#places + 1] = skip + place
    end
  end
  return chosen, places, kept
end

begin_writing(q)
local ids = ids_in_portion()
local purged, places, kept = choose(ids)
if not is_list then
  in_portions('ZREM', key, purged)
elseif skip == 0 and kept == 0 then
  call('LTRIM', key, 0, -#purged - 1)
elseif #purged > 0 then
  remove_places(key, places)
end
for _, id in ipairs(purged) do
  release_deduplication(q, id)
  if request.state == 'active' then
    call('DEL', q.base .. id .. ':lock')
  end
  delete_job(q, id)
end
close_all()
return { purged, kept, #ids < portion and 1 or 0 }
