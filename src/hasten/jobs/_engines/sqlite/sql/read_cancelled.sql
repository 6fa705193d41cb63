-- :seqs is a JSON array. Returns JSON: the ids of those jobs that are running and were cancelled.
SELECT json_group_array(coalesce(custom_id, CAST(seq AS TEXT))) FROM hasten_jobs NOT INDEXED
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND queue = :queue AND state = 'active' AND cancel_requested
