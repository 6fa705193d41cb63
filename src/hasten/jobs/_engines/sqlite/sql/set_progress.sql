-- Store the progress of a job, as JSON. Returns the state of the job; no row if there is no such job.
UPDATE hasten_jobs SET progress = :value
WHERE seq = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id
RETURNING state
