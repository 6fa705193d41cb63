-- Returns JSON: [[seq, state], …] of the descendants of a job, each parent before its children.
WITH RECURSIVE family (seq, depth) AS (
    SELECT :seq, 0 UNION ALL
    SELECT child, depth + 1 FROM family JOIN hasten_children ON parent = family.seq)
SELECT json_group_array(json_array(seq, state)) FROM
    (SELECT job.seq, job.state FROM family CROSS JOIN hasten_jobs AS job ON job.seq = family.seq
     WHERE depth > 0 ORDER BY depth, job.seq)
