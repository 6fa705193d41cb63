-- Delete up to :limit schedules of a queue.
DELETE FROM hasten_schedules
WHERE rowid IN (SELECT rowid FROM hasten_schedules WHERE queue = :queue LIMIT :limit)
