-- Returns JSON: up to :limit children of a job that have failed for good, as read_children.sql does.
SELECT json_group_array(json_array(child.queue, child.id, job.state, value, child.on_failure, NULL, outcome))
FROM (SELECT * FROM hasten_children WHERE parent = :seq AND outcome IN ('ignored', 'failed')
      ORDER BY child LIMIT :limit) AS child
LEFT JOIN hasten_jobs AS job ON job.seq = child.child
