-- Replace the data of jobs that have not started. Parameters: seq, data, due, delay of each job; due (in ms) and delay
-- are NULL for a job that stays where it is.
UPDATE hasten_jobs NOT INDEXED
SET data = newest.data, rank = coalesce(newest.due_ms, rank), delay_ms = coalesce(newest.delay_ms, hasten_jobs.delay_ms)
FROM (WITH row (seq, data, due_ms, delay_ms) AS (VALUES {(?, ?, ?, ?)}) SELECT * FROM row) AS newest
WHERE hasten_jobs.seq = newest.seq
