-- Find jobs by ids that producers have chosen. :ids is a JSON array. Returns JSON: [[id, seq of its parent], …].
SELECT json_group_array(json_array(custom_id, parent)) FROM hasten_jobs
WHERE queue = :queue AND custom_id IN (SELECT value FROM json_each(:ids))
