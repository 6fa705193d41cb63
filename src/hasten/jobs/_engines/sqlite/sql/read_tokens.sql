-- :seqs is a JSON array. Returns JSON: [[seq, token], …] of those jobs that are active.
SELECT json_group_array(json_array(seq, token)) FROM hasten_jobs NOT INDEXED
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND queue = :queue AND state = 'active'
