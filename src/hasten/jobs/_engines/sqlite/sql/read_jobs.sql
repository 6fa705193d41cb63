-- :seqs is a JSON array; :tracebacks is whether to read them.
-- Returns JSON: [[seq, [fields of JobRecord]], …] in that order.
SELECT json_group_array(json_array(seq, json_array(<record>)))
FROM (SELECT hasten_jobs.* FROM json_each(:seqs) CROSS JOIN hasten_jobs ON seq = value ORDER BY key)
