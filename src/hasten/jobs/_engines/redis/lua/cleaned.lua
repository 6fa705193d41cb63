-- uses: queue
-- cleaned: tell that jobs were purged.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {count}
local q = open(KEYS[1])
begin_writing(q)
tell(q, 'cleaned', 'count', request.count)
close_all()
return 0
