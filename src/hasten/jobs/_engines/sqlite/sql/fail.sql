-- Fail jobs that are kept. Parameters: seq, token, error, traceback, counts, rank, now of each job; then the queue.
-- counts is 1 if the run used up an attempt, else 0. The newest 20 tracebacks are kept.
UPDATE hasten_jobs NOT INDEXED
SET state = 'failed', rank = outcome.rank, failed_reason = outcome.error,
    stacktrace = CASE WHEN outcome.traceback IS NULL THEN stacktrace
        ELSE json_insert(CASE WHEN NOT json_valid(stacktrace) THEN '[]'
                         WHEN json_type(stacktrace) IS NOT 'array' THEN '[]'
                         WHEN json_array_length(stacktrace) >= 20 THEN json_remove(stacktrace, '$[0]')
                         ELSE stacktrace END, '$[#]', outcome.traceback) END,
    finished_ms = outcome.now_ms, token = NULL, lease_ms = NULL,
    attempts_made = attempts_made + outcome.counts, deferred_failure = NULL, cancel_requested = 0
FROM (WITH row (seq, token, error, traceback, counts, rank, now_ms)
      AS (VALUES {(?, ?, ?, ?, ?, ?, ?)}) SELECT * FROM row) AS outcome
WHERE hasten_jobs.seq = outcome.seq AND state = 'active' AND hasten_jobs.token = outcome.token
  AND queue = ?
