-- :seqs is a JSON array. Returns JSON: the ids of the jobs that are to stop.
SELECT json_group_array(coalesce(custom_id, CAST(seq AS TEXT))) FROM hasten_jobs NOT INDEXED
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND queue = :queue AND state = 'active' AND cancel_requested
