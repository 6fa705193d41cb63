-- :before is a time in ms, or NULL for all; :limit is -1 for all.
-- Returns JSON: [[seq, id], …], oldest first.
SELECT json_group_array(json_array(seq, coalesce(custom_id, CAST(seq AS TEXT)))) FROM
    (SELECT seq, custom_id FROM hasten_jobs
     WHERE queue = :queue AND state = :state AND (:before IS NULL OR coalesce(finished_ms, created_ms) <= :before)
     ORDER BY coalesce(finished_ms, created_ms), seq LIMIT :limit)
