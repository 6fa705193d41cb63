-- Delete at most :limit deduplication keys of a queue.
DELETE FROM hasten_deduplication WHERE rowid IN
    (SELECT rowid FROM hasten_deduplication WHERE queue = :queue LIMIT :limit)
