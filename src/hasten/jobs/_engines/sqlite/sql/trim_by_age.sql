-- Delete at most :limit jobs that finished until :cut_off, in ms. Only the 1,000 oldest jobs in the state are checked.
DELETE FROM hasten_jobs WHERE seq IN
    (SELECT seq FROM (SELECT seq, finished_ms FROM hasten_jobs
                      WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT 1000)
     WHERE finished_ms <= :cut_off LIMIT :limit)
