-- Returns JSON: the seqs of the active jobs whose lease has expired, or ends later than its length allows because the
-- clock was set back. The job that started last comes first.
SELECT json_group_array(seq) FROM
    (SELECT seq FROM hasten_jobs
     WHERE queue = :queue AND state = 'active' AND (lease_ms <= :now OR lease_ms > :now + lease_length_ms)
     ORDER BY rank DESC, seq DESC)
