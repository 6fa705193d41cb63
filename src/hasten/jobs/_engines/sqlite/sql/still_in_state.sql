-- Returns JSON: the seqs of :seqs, a JSON array, whose jobs are in :state.
SELECT json_group_array(value) FROM json_each(:seqs)
WHERE EXISTS (SELECT 1 FROM hasten_jobs NOT INDEXED WHERE seq = value AND queue = :queue AND state = :state)
