-- Returns JSON: those of the jobs in :seqs, a JSON array, that have not finished.
SELECT json_group_array(seq) FROM hasten_jobs NOT INDEXED
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state NOT IN ('completed', 'failed')
