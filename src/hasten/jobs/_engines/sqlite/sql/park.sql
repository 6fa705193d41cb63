-- Make a running job wait for its children, or make it ready in front of the queue if it waits for none or was cancelled.
-- Returns its state; no row if its lease is lost.
UPDATE hasten_jobs
SET state = CASE WHEN pending > 0 AND deferred_failure IS NULL THEN 'waiting-children'
                 WHEN priority > 0 THEN 'prioritized' ELSE 'waiting' END,
    rank = CASE WHEN pending > 0 AND deferred_failure IS NULL THEN :now
                WHEN priority > 0 THEN priority << 41 ELSE -:sequence END,
    delay_ms = 0, token = NULL, lease_ms = NULL, add_calls = max(coalesce(add_calls, 0), :add_calls)
WHERE seq = :seq AND queue = :queue AND state = 'active' AND token = :token
RETURNING state
