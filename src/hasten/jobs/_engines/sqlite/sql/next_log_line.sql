-- Count a new log line. Returns the number of the line and the state of the job; no row if there is no such job.
UPDATE hasten_jobs SET log_lines = log_lines + 1
WHERE seq = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id
RETURNING log_lines, state
