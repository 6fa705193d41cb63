-- Change a job. A parameter that is NULL leaves its column unchanged.
UPDATE hasten_jobs
SET data = coalesce(:data, data), priority = coalesce(:priority, priority), delay_ms = coalesce(:delay, delay_ms),
    progress = coalesce(:progress, progress), state = :state, rank = coalesce(:rank, rank)
WHERE seq = :seq
