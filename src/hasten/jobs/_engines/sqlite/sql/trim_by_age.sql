-- Delete at most :limit of the oldest 1,000 finished jobs, those that finished until :cut_off, in ms.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM (SELECT seq, finished_ms FROM hasten_jobs
                      WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT 1000)
     WHERE finished_ms <= :cut_off LIMIT :limit)
