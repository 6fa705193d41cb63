-- Returns JSON: seqs of leases that have run out, or end further ahead than they last, the latest first.
SELECT json_group_array(seq) FROM
    (SELECT seq FROM hasten_jobs
     WHERE queue = :queue AND state = 'active' AND (lease_ms <= :now OR lease_ms > :now + lease_length_ms)
     ORDER BY rank DESC, seq DESC)
