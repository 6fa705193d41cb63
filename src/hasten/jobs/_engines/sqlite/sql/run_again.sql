-- Make a finished job ready to run again, with no attempts used.
UPDATE hasten_jobs
SET state = :state, rank = :rank, delay_ms = 0, attempts_made = 0, crashes = 0, processed_ms = NULL,
    finished_ms = NULL, result = NULL, failed_reason = NULL, progress = NULL
WHERE seq = :seq
