-- Returns the rank of a job and, while it is active, when its lease expires.
SELECT rank, lease_ms FROM hasten_jobs WHERE seq = :seq
