-- Returns JSON: [[seq, id, priority, crashes], …] of leases that have run out.
SELECT json_group_array(json_array(seq, coalesce(custom_id, CAST(seq AS TEXT)), priority, crashes))
FROM (SELECT * FROM hasten_jobs
      WHERE queue = :queue AND state = 'active' AND lease_ms <= :now ORDER BY rank, seq)
