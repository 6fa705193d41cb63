-- Complete jobs that are kept. Parameters: seq, token, result, rank, now of each job; then the queue.
UPDATE hasten_jobs NOT INDEXED
SET state = 'completed', rank = outcome.rank, result = outcome.result,
    finished_ms = outcome.now_ms, token = NULL, lease_ms = NULL,
    attempts_made = attempts_made + 1, deferred_failure = NULL, cancel_requested = 0
FROM (WITH row (seq, token, result, rank, now_ms)
      AS (VALUES {(?, ?, ?, ?, ?)}) SELECT * FROM row) AS outcome
WHERE hasten_jobs.seq = outcome.seq AND state = 'active' AND hasten_jobs.token = outcome.token
  AND queue = ?
