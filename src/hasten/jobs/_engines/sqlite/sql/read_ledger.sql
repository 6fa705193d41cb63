-- Returns the number of migrations that the database has run, whether a delayed job of a queue is due, and the counters
-- of the queue, which are NULL if it has none yet.
SELECT (SELECT value FROM hasten_meta WHERE name = 'schema'),
    EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'delayed' AND rank <= :now),
    paused, completed, failed, ticket, event_bytes, linked
FROM (SELECT 1) LEFT JOIN hasten_queues ON name = :queue
