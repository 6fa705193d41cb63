-- Delete at most :limit jobs in :state.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state LIMIT :limit)
