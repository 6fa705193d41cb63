-- Remove the jobs in :seqs, a JSON array, from the children of their parents.
DELETE FROM hasten_children WHERE child IN (SELECT value FROM json_each(:seqs))
