-- Add jobs that differ in their data only: ready at once, without a priority or a chosen id.
-- Parameters for all jobs: queue, the difference between rank and seq, name, opts, now; then one row each: seq, data.
INSERT INTO hasten_jobs
    (seq, queue, state, rank, name, data, opts, priority, delay_ms, created_ms)
SELECT column1, ?, 'waiting', column1 + ?, ?, column2, ?, 0, 0, ? FROM (VALUES {(?, ?)})
