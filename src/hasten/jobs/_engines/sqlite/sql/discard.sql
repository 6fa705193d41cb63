-- Delete jobs that have just finished and are not kept. Parameters: seq, token of each job; then the queue.
DELETE FROM hasten_jobs WHERE seq IN
    (WITH row (seq, token) AS (VALUES {(?, ?)})
     SELECT row.seq FROM row CROSS JOIN hasten_jobs AS job NOT INDEXED ON job.seq = row.seq
     WHERE job.state = 'active' AND job.token = row.token AND job.queue = ?)
