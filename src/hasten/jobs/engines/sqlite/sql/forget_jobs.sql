-- Delete the jobs of a queue.
DELETE FROM hasten_jobs WHERE queue = :queue
