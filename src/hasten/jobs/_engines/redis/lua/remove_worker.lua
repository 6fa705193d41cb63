-- uses: workers
-- remove_worker: delete the report of a worker that has stopped.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id}
begin_writing(open(KEYS[1]))
forget_workers({ request.id })
return 1
