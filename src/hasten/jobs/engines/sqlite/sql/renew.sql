-- Renew leases, a row each: seq, token, until; then the queue.
UPDATE hasten_jobs SET lease_ms = lease.until_ms
FROM (WITH row (seq, token, until_ms)
      AS (VALUES {(?, ?, ?)}) SELECT * FROM row) AS lease
WHERE hasten_jobs.seq = lease.seq AND state = 'active' AND hasten_jobs.token = lease.token
  AND queue = ?
