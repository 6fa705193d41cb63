-- Returns the running workers of a queue: see `delete_dead_workers.sql`.
SELECT seen_ms, info FROM hasten_workers
WHERE queue = :queue AND expires_ms > :now AND seen_ms <= :now + (expires_ms - seen_ms)
