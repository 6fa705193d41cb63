-- Returns when the oldest finished job in a state finished, in ms.
SELECT finished_ms FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT 1
