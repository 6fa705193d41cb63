-- :seqs is a JSON array. Returns JSON: the seqs of those jobs that are in :state.
SELECT json_group_array(value) FROM json_each(:seqs)
WHERE EXISTS (SELECT 1 FROM hasten_jobs NOT INDEXED WHERE seq = value AND queue = :queue AND state = :state)
