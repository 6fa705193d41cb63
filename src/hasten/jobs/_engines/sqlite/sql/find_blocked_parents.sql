-- :seqs is a JSON array. Returns JSON: [[seq, whether a child has failed, opts], …] of those jobs that may not complete
-- because of their children. A parent with pending children may complete if it ignores the failure of a child.
SELECT json_group_array(json_array(seq, failed, opts)) FROM
    (SELECT seq, opts, pending,
            EXISTS (SELECT 1 FROM hasten_children WHERE parent = seq AND outcome = 'failed') AS failed
     FROM hasten_jobs NOT INDEXED
     WHERE seq IN (SELECT value FROM json_each(:seqs)) AND pending IS NOT NULL)
WHERE failed OR (pending > 0 AND NOT EXISTS
    (SELECT 1 FROM hasten_children WHERE parent = seq AND outcome = 'ignored'))
