-- uses: queue
-- pause: return no jobs from claims until `resume`.
-- KEYS  1 the beginning of the queue's keys
local q = open(KEYS[1])
call('HSET', q.base .. 'meta', 'paused', 1)
call('DEL', q.base .. 'marker')
emit(q, 'paused')
close_all()
return 0
