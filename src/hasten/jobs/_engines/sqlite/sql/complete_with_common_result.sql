-- Complete jobs that are kept, were claimed together and have the same result. All get the same rank, so they must have
-- finished in the order of their seqs. :seqs is a JSON array.
UPDATE hasten_jobs NOT INDEXED
SET state = 'completed', rank = :rank, result = :result, finished_ms = :now, token = NULL,
    lease_ms = NULL, attempts_made = attempts_made + 1, deferred_failure = NULL,
    cancel_requested = 0
WHERE seq IN (SELECT value FROM json_each(:seqs))
  AND state = 'active' AND token = :token AND queue = :queue
