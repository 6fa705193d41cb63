-- Delete the jobs in :seqs, a JSON array.
DELETE FROM hasten_jobs NOT INDEXED WHERE seq IN (SELECT value FROM json_each(:seqs))
