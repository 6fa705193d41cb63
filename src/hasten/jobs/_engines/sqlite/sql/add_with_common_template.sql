-- Add jobs that differ only in their data: they are ready at once, and have no priority and no chosen id.
-- Parameters: queue, the difference between rank and seq, name, opts, now; then seq and data of each job.
INSERT INTO hasten_jobs
    (seq, queue, state, rank, name, data, opts, priority, delay_ms, created_ms)
SELECT column1, ?, 'waiting', column1 + ?, ?, column2, ?, 0, 0, ? FROM (VALUES {(?, ?)})
