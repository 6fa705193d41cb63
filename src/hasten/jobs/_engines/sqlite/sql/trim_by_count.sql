-- Delete the :limit oldest finished jobs.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT :limit)
