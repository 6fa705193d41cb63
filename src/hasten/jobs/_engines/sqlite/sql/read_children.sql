-- Returns JSON: a page of the children of a job, [[queue, id, state, error, on_failure, value, outcome], …], in the order
-- of adding.
SELECT json_group_array(json_array(
    child.queue, child.id, job.state,
    CASE WHEN outcome IN ('ignored', 'failed') THEN value WHEN job.state = 'failed' THEN job.failed_reason END,
    child.on_failure, CASE outcome WHEN 'completed' THEN value END, outcome))
FROM (SELECT * FROM hasten_children WHERE parent = :seq ORDER BY child LIMIT :limit OFFSET :offset) AS child
LEFT JOIN hasten_jobs AS job ON job.seq = child.child
