-- Returns a row if a lease has run out, or ends further ahead than it lasts.
SELECT 1 FROM hasten_jobs
WHERE queue = :queue AND state = 'active' AND (lease_ms <= :now OR lease_ms > :now + lease_length_ms) LIMIT 1
