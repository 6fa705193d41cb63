-- Returns JSON: the log lines of a job, oldest first.
SELECT json_group_array(line) FROM
    (SELECT line FROM hasten_logs JOIN hasten_jobs ON seq = job
     WHERE job = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id ORDER BY n)
