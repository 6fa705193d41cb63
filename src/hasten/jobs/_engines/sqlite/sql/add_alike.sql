-- Add jobs that have all in common but their data, ready at once, without priority or chosen id.
-- First, for all: queue, what to add to seq for the rank, name, opts, now; then a row each: seq, data.
INSERT INTO hasten_jobs
    (seq, queue, state, rank, name, data, opts, priority, delay_ms, created_ms)
SELECT column1, ?, 'waiting', column1 + ?, ?, column2, ?, 0, 0, ? FROM (VALUES {(?, ?)})
