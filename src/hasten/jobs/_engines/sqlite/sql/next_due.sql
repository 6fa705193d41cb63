-- Returns the ms when the next delayed job is due, NULL if there is none.
SELECT min(rank) FROM hasten_jobs WHERE queue = :queue AND state = 'delayed'
