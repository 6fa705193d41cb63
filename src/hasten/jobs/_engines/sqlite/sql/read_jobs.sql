-- :seqs is a JSON array; :tracebacks is 1 to read tracebacks, 0 to leave them out.
-- Returns JSON: [[seq, [fields of JobRecord]], …] in the order of :seqs.
SELECT json_group_array(json_array(seq, json_array(<record>)))
FROM (SELECT hasten_jobs.* FROM json_each(:seqs) CROSS JOIN hasten_jobs ON seq = value ORDER BY key) AS stored
