-- Let those leases of :seqs, a JSON array, that end further ahead than they last end when they would if they
-- began now: they were given before the clock was set back. A worker that lives renews its own long before.
UPDATE hasten_jobs NOT INDEXED SET lease_ms = :now + lease_length_ms
WHERE seq IN (SELECT value FROM json_each(:seqs))
  AND queue = :queue AND state = 'active' AND lease_ms > :now + lease_length_ms
