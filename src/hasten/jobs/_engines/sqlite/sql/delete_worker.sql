-- Deletes the row of a worker that has stopped.
DELETE FROM hasten_workers WHERE queue = :queue AND id = :id
