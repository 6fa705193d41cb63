-- :seqs is a JSON array; :traces is whether to read stack traces.
-- Returns JSON: [[seq, [fields of JobRecord]], …] in that order.
SELECT json_group_array(json_array(
    seq, json_array(
        queue, coalesce(custom_id, CAST(seq AS TEXT)), name, data, opts, state, priority,
        delay_ms, created_ms, attempts_made, attempts_started, crashes, deferred_failure,
        processed_ms, worker, progress, failed_reason,
        CASE state WHEN 'delayed' THEN rank END, finished_ms, result, 
        json(CASE WHEN :traces AND json_valid(stacktrace) THEN stacktrace ELSE '[]' END),
        json(CASE cancel_requested WHEN 0 THEN 'false' ELSE 'true' END)
    )))
FROM (SELECT hasten_jobs.* FROM json_each(:seqs) CROSS JOIN hasten_jobs ON seq = value ORDER BY key)
