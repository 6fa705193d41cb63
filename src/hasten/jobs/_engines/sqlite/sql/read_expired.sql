-- :seqs is a JSON array. Returns JSON: [[seq, id, priority, crashes], …] of those active jobs whose lease has expired.
SELECT json_group_array(json_array(seq, coalesce(custom_id, CAST(seq AS TEXT)), priority, crashes))
FROM (SELECT * FROM hasten_jobs NOT INDEXED WHERE seq IN (SELECT value FROM json_each(:seqs))
      AND queue = :queue AND state = 'active' AND lease_ms <= :now ORDER BY rank, seq)
