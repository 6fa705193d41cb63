-- Returns JSON: seqs of the jobs whose lease has expired, or ends later than its length allows (the clock was set
-- back), the latest started first.
SELECT json_group_array(seq) FROM
    (SELECT seq FROM hasten_jobs
     WHERE queue = :queue AND state = 'active' AND (lease_ms <= :now OR lease_ms > :now + lease_length_ms)
     ORDER BY rank DESC, seq DESC)
