-- uses: adding schedule_states
-- run_schedule: add a job of a scheduler that is ready now, besides its pending one.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {now, id: of the scheduler, name, data, opts, priority, lifo}
-- Returns the id of the job; false if there is no such scheduler.
local q = open(KEYS[1])
local scheduler = request.id
if not find_schedule(q, scheduler) then
  return false
end
local id = string.format('%.0f', call('INCR', q.base .. 'id'))
store(q, id, request.name, request.data, request.opts, request.now, 0, request.priority, 'rjk', scheduler)
add_to_state(q, id, request.now, 0, request.priority, request.lifo)
local own = state_of_schedule(q, scheduler)
own.runs = with_run(unfinished_runs(q, own), id)
save_schedule(q, scheduler, own)
close_all()
return id
