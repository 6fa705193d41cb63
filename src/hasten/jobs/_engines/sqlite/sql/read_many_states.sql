-- :seqs is a JSON array. Returns JSON: [[seq, queue, id, state], …] of those jobs that exist.
SELECT json_group_array(json_array(seq, queue, coalesce(custom_id, CAST(seq AS TEXT)), state))
FROM hasten_jobs NOT INDEXED WHERE seq IN (SELECT value FROM json_each(:seqs))
