-- Delete the events of a queue.
DELETE FROM hasten_events WHERE queue = :queue
