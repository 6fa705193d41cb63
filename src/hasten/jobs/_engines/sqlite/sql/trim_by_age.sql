-- Delete :limit of those of the oldest 1,000 finished jobs that are too old. :cut_off is in ms.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM (SELECT seq, finished_ms FROM hasten_jobs
                      WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT 1000)
     WHERE finished_ms <= :cut_off LIMIT :limit)
