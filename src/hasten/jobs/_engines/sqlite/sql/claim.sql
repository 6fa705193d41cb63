-- Lease the jobs that read_ready has just returned.
UPDATE hasten_jobs
SET state = 'active', rank = :now, token = :token, lease_ms = :until,
    lease_length_ms = :length, worker = :worker, processed_ms = :now,
    attempts_started = attempts_started + 1
WHERE seq IN
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank LIMIT :limit)
