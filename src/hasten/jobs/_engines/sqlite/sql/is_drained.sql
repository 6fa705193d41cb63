-- Returns a row if no job of the queue is ready, active or delayed.
SELECT 1 WHERE NOT EXISTS
    (SELECT 1 FROM hasten_jobs
     WHERE queue = :queue AND state IN ('waiting', 'prioritized', 'active', 'delayed'))
