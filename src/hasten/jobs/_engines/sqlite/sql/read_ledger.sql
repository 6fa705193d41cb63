-- Returns the counters of a queue, and whether a delayed job is due.
SELECT paused, completed, failed, ticket, event_bytes, linked,
    EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'delayed' AND rank <= :now)
FROM hasten_queues WHERE name = :queue
