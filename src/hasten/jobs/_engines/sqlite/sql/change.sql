-- Change a job: NULL leaves a column as it is.
UPDATE hasten_jobs
SET data = coalesce(:data, data), priority = coalesce(:priority, priority), delay_ms = coalesce(:delay, delay_ms),
    progress = coalesce(:progress, progress), state = :state, rank = coalesce(:rank, rank)
WHERE seq = :seq
