-- Delete finished jobs that are not kept, a row each: seq, token; then the queue.
DELETE FROM hasten_jobs
WHERE state = 'active' AND (seq, token) IN (VALUES {(?, ?)}) AND queue = ?
