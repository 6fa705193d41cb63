-- uses: schedule_states deleting
-- remove_schedules: delete schedulers with their pending jobs, unless these are ready to start.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {ids = {…}}
-- Returns for each id 1 if the scheduler existed, else 0.
local q = open(KEYS[1])
begin_writing(q)
local answers = {}
for index, scheduler in ipairs(request.ids) do
  local found = find_schedule(q, scheduler)
  answers[index] = found and 1 or 0
  if found then
    if found[1] and not has_started(q, scheduler, found[1]) then
      remove_pending(q, scheduler, found[1], { delayed = true }, delete_keys)
    end
    call('ZREM', q.base .. 'repeat', scheduler)
    call('DEL', q.base .. 'repeat:' .. scheduler)
    call('HDEL', q.base .. 'hasten:paused', scheduler)
  end
  call('HDEL', q.base .. 'hasten:schedules', scheduler)
end
close_all()
return answers
