-- Add :change to the number of pending children of a job. Returns its queue, id, state, priority, delay, and how many
-- children are pending now; no row if there is no such job.
UPDATE hasten_jobs SET pending = coalesce(pending, 0) + :change WHERE seq = :seq
RETURNING queue, coalesce(custom_id, CAST(seq AS TEXT)), state, priority, delay_ms, pending
