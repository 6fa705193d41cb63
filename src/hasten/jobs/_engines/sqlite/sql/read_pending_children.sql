-- :seqs is a JSON array. Returns JSON: [[child, parent, queue, id, on_failure], …] of those jobs that their parents wait
-- for.
SELECT json_group_array(json_array(child, parent, queue, id, on_failure)) FROM hasten_children
WHERE child IN (SELECT value FROM json_each(:seqs)) AND outcome = 'pending'
