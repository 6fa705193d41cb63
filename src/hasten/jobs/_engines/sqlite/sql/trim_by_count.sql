-- Delete the :limit oldest jobs in a finished state.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT :limit)
