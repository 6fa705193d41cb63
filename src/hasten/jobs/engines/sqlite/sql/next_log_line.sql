-- Returns the number of the next line; no row if the job is gone.
UPDATE hasten_jobs SET log_lines = log_lines + 1
WHERE seq = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id
RETURNING log_lines
