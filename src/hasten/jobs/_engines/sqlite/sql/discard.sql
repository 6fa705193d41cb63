-- Delete finished jobs that are not kept, one row each: seq, token; then the queue.
DELETE FROM hasten_jobs WHERE seq IN
    (WITH row (seq, token) AS (VALUES {(?, ?)})
     SELECT row.seq FROM row CROSS JOIN hasten_jobs AS job NOT INDEXED ON job.seq = row.seq
     WHERE job.state = 'active' AND job.token = row.token AND job.queue = ?)
