-- Fail a job that is not running.
UPDATE hasten_jobs
SET state = 'failed', failed_reason = :error, rank = :rank, finished_ms = :now, deferred_failure = NULL,
    cancel_requested = 0
WHERE seq = :seq
