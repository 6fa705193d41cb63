-- Returns JSON: the ids of the active jobs that one claim has leased, in the order of claiming.
SELECT json_group_array(coalesce(custom_id, CAST(seq AS TEXT)))
FROM (SELECT seq, custom_id FROM hasten_jobs
      WHERE queue = :queue AND state = 'active' AND token = :token ORDER BY rank, seq)
