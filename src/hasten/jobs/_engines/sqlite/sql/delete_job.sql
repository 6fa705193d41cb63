-- Delete a job.
DELETE FROM hasten_jobs WHERE seq = :seq
