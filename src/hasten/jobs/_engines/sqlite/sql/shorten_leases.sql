-- Shorten the leases of :seqs, a JSON array, that end later than their length allows, because the clock was set back:
-- they end as if they began now. A live worker renews its leases long before that.
UPDATE hasten_jobs NOT INDEXED SET lease_ms = :now + lease_length_ms
WHERE seq IN (SELECT value FROM json_each(:seqs))
  AND queue = :queue AND state = 'active' AND lease_ms > :now + lease_length_ms
