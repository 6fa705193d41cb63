-- Returns JSON: [[the first fields of JobRecord, as they are after the claim], …] of the jobs that are first in line.
SELECT json_group_array(json_array(<claimed record>))
FROM (SELECT seq, queue, custom_id, name, data, opts, priority, delay_ms, created_ms,
             attempts_made, attempts_started, crashes, deferred_failure, progress, failed_reason
      FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank LIMIT :limit)
