-- Returns state, priority and options of a job. The id is compared because :seq may belong to a job with another id.
SELECT state, priority, opts FROM hasten_jobs
WHERE seq = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id
