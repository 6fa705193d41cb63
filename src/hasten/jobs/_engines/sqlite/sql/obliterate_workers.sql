-- Deletes the rows of all workers of a queue.
DELETE FROM hasten_workers WHERE queue = :queue
