-- uses: queue
-- emit_cleaned: emit the event that reports how many jobs were purged.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {count}
local q = open(KEYS[1])
begin_writing(q)
emit(q, 'cleaned', 'count', request.count)
close_all()
return 0
