-- Returns JSON: [[seq, id, priority], …] of the delayed jobs that are due, earliest first.
SELECT json_group_array(json_array(seq, coalesce(custom_id, CAST(seq AS TEXT)), priority))
FROM (SELECT seq, custom_id, priority FROM hasten_jobs
      WHERE queue = :queue AND state = 'delayed' AND rank <= :now ORDER BY rank, seq LIMIT :limit)
