-- Counts the jobs in a state that come before :rank, up to :limit.
SELECT count(*) FROM
    (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = :state AND rank < :rank LIMIT :limit)
