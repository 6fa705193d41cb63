-- uses: queue
-- BullMQ's metrics: how many jobs have finished per minute. The hash `metrics:completed` has in `count` all jobs so far,
-- in `prevTS` when a minute was last added to the list `metrics:completed:data`, and in `prevCount` what `count` was
-- then. The newest minute is first in the list. The same for `metrics:failed`.

-- Counts jobs that finish now. The list keeps this many minutes.
local function count_finished(q, state, count, now, minutes)
  local key = q.base .. 'metrics:' .. state
  local list = key .. ':data'
  local kind, kind_of_list = call('TYPE', key).ok, call('TYPE', list).ok
  if count == 0 or (kind ~= 'hash' and kind ~= 'none') or (kind_of_list ~= 'list' and kind_of_list ~= 'none') then
    return
  end
  local stored = call('HMGET', key, 'count', 'prevTS', 'prevCount')
  local before = whole(stored[1])
  call('HSET', key, 'count', before + count)
  if not stored[2] then
    call('HSET', key, 'prevTS', now, 'prevCount', 0)
    return
  end
  local passed = math.min(math.floor(now / 60000) - math.floor(whole(stored[2]) / 60000), minutes)
  if passed <= 0 then
    return
  end
  call('LPUSH', list, math.max(0, before - whole(stored[3])))
  local zeros = {}
  for index = 1, passed - 1 do
    zeros[index] = 0
  end
  in_portions('LPUSH', list, zeros)
  call('LTRIM', list, 0, minutes - 1)
  call('HSET', key, 'prevTS', now, 'prevCount', before)
end
