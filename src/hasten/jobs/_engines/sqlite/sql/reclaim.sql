-- Make the job of a dead worker ready. :error is the error with which the next worker fails it, or NULL.
UPDATE hasten_jobs
SET state = :state, rank = :rank, crashes = crashes + 1, token = NULL, lease_ms = NULL,
    deferred_failure = coalesce(deferred_failure, :error)
WHERE seq = :seq
