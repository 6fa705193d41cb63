-- uses: queue
-- emit_cleaned: emit the event "cleaned", with the number of jobs that a purge has deleted.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {count}
local q = open(KEYS[1])
begin_writing(q)
emit(q, 'cleaned', 'count', request.count)
close_all()
return 0
