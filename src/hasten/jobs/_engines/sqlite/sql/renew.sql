-- Renew leases. Parameters: seq, token, new end, length of each lease, both in ms; then the queue.
UPDATE hasten_jobs NOT INDEXED SET lease_ms = lease.until_ms, lease_length_ms = lease.length_ms
FROM (WITH row (seq, token, until_ms, length_ms)
      AS (VALUES {(?, ?, ?, ?)}) SELECT * FROM row) AS lease
WHERE hasten_jobs.seq = lease.seq AND state = 'active' AND hasten_jobs.token = lease.token
  AND queue = ?
