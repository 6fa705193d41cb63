-- uses: schedule_states
-- count_schedules: return how many schedulers there are, with the paused ones, which are not in BullMQ's set.
-- KEYS  1 the beginning of the queue's keys
local count = read('ZCARD', KEYS[1] .. 'repeat')
return (tonumber(count) or 0) + #paused_schedulers(KEYS[1])
