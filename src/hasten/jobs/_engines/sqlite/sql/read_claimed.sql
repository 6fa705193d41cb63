-- Returns JSON: [id, …] of the jobs that one claim has leased, in its order.
SELECT json_group_array(coalesce(custom_id, CAST(seq AS TEXT)))
FROM (SELECT seq, custom_id FROM hasten_jobs
      WHERE queue = :queue AND state = 'active' AND token = :token ORDER BY rank, seq)
