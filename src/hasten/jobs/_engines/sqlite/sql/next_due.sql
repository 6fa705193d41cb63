-- Returns when the next delayed job is due, in ms; NULL if there is none.
SELECT min(rank) FROM hasten_jobs WHERE queue = :queue AND state = 'delayed'
