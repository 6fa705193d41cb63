-- Delay a job that was just claimed, as if it had not been. :rank is when it is due.
UPDATE hasten_jobs
SET state = 'delayed', rank = :rank, token = NULL, lease_ms = NULL, lease_length_ms = NULL, worker = NULL,
    processed_ms = NULL, attempts_started = attempts_started - 1
WHERE seq = :seq
