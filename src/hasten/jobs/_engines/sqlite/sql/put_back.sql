-- Make jobs delayed or ready again after a run that did not finish them. Parameters: seq, token, kind, error,
-- traceback, delay, sequence, now of each job; then the queue. kind is 'retry', which uses up an attempt, 'postpone',
-- or 'release', which puts the job in front of the others. The newest 20 tracebacks are kept.
UPDATE hasten_jobs NOT INDEXED
SET state = CASE WHEN outcome.delay_ms > 0 THEN 'delayed'
                 WHEN priority > 0 THEN 'prioritized' ELSE 'waiting' END,
    rank = CASE WHEN outcome.delay_ms > 0 THEN outcome.now_ms + outcome.delay_ms
                WHEN priority > 0 AND kind = 'release' THEN priority << 41
                WHEN priority > 0 THEN (priority << 41) + sequence
                WHEN kind = 'release' OR CASE WHEN json_valid(opts) THEN json_extract(opts, '$.lifo') END THEN -sequence
                ELSE sequence END,
    delay_ms = CASE WHEN kind = 'release' THEN hasten_jobs.delay_ms ELSE outcome.delay_ms END,
    attempts_made = attempts_made + (kind = 'retry'),
    failed_reason = coalesce(outcome.error, failed_reason),
    stacktrace = CASE WHEN outcome.traceback IS NULL THEN stacktrace
        ELSE json_insert(CASE WHEN NOT json_valid(stacktrace) THEN '[]'
                         WHEN json_type(stacktrace) IS NOT 'array' THEN '[]'
                         WHEN json_array_length(stacktrace) >= 20 THEN json_remove(stacktrace, '$[0]')
                         ELSE stacktrace END, '$[#]', outcome.traceback) END,
    token = NULL, lease_ms = NULL
FROM (WITH row (seq, token, kind, error, traceback, delay_ms, sequence, now_ms)
      AS (VALUES {(?, ?, ?, ?, ?, ?, ?, ?)}) SELECT * FROM row) AS outcome
WHERE hasten_jobs.seq = outcome.seq AND state = 'active' AND hasten_jobs.token = outcome.token
  AND queue = ?
