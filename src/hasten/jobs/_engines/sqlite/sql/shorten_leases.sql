-- :seqs is a JSON array. If the lease of one of these jobs ends later than its length allows, because the clock was set
-- back, it is shortened as if it began now. A live worker renews its leases long before they end.
UPDATE hasten_jobs NOT INDEXED SET lease_ms = :now + lease_length_ms
WHERE seq IN (SELECT value FROM json_each(:seqs))
  AND queue = :queue AND state = 'active' AND lease_ms > :now + lease_length_ms
