-- A number is the id of a job only where its producer chose none.
-- Returns state, priority, opts.
SELECT state, priority, opts FROM hasten_jobs
WHERE seq = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id
