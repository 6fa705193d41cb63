-- :seqs is a JSON array. Returns JSON: [[id, state, result or error], …] of those jobs that are in :queue.
SELECT json_group_array(json_array(
    coalesce(custom_id, CAST(seq AS TEXT)), state,
    CASE state WHEN 'completed' THEN result WHEN 'failed' THEN failed_reason END))
FROM hasten_jobs NOT INDEXED WHERE seq IN (SELECT value FROM json_each(:seqs)) AND queue = :queue
