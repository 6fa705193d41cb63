-- :keys is a JSON array. Returns JSON: [[key, owner, removed, expires_ms, window_ms, state, starts, created_ms, rank], …]
-- of those deduplication keys that have a row. The last four are those of the owner, NULL if it was deleted.
SELECT json_group_array(json_array(
    taken.key, owner, removed, expires_ms, window_ms, state, attempts_started, created_ms, rank))
FROM json_each(:keys) AS wanted
CROSS JOIN hasten_deduplication AS taken ON taken.queue = :queue AND taken.key = wanted.value
LEFT JOIN hasten_jobs ON hasten_jobs.seq = taken.owner
