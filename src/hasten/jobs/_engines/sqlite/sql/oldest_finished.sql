-- Returns the ms when the oldest of the finished jobs in a state finished.
SELECT finished_ms FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT 1
