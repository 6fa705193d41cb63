-- Deletes the rows of workers that have died. A row that was written in the future is from before the clock was set
-- back.
DELETE FROM hasten_workers
WHERE queue = :queue AND (expires_ms <= :now OR seen_ms > :now + (expires_ms - seen_ms))
