-- Delete the oldest :limit rows of events of a queue.
DELETE FROM hasten_events WHERE queue = :queue AND seq IN
    (SELECT seq FROM hasten_events WHERE queue = :queue ORDER BY seq LIMIT :limit)
