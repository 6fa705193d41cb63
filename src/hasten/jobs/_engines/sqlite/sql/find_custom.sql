-- :ids is a JSON array of ids that producers have chosen. Returns JSON: [[id, seq], …].
SELECT json_group_array(json_array(custom_id, seq)) FROM hasten_jobs
WHERE queue = :queue AND custom_id IN (SELECT value FROM json_each(:ids))
