-- Returns JSON: the first fields of JobRecord as they are once claimed, first come first.
SELECT json_group_array(json_array(
    queue, coalesce(custom_id, CAST(seq AS TEXT)), name, data, opts, 'active', priority, delay_ms,
    created_ms, attempts_made, attempts_started + 1, crashes, deferred_failure, :now, :worker,
    progress, failed_reason
))
FROM (SELECT seq, queue, custom_id, name, data, opts, priority, delay_ms, created_ms,
             attempts_made, attempts_started, crashes, deferred_failure, progress, failed_reason
      FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank LIMIT :limit)
