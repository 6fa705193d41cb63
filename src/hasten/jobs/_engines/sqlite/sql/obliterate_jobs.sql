-- Delete at most :limit jobs in :state. Returns their seqs.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state LIMIT :limit)
RETURNING seq
