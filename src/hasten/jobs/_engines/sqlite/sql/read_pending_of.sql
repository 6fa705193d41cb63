-- Returns JSON: [[queue, id, state, error, on_failure], …] of up to :limit children that a job waits for, failed ones
-- first.
SELECT json_group_array(json_array(queue, id, state, error, on_failure)) FROM
    (SELECT child.queue, child.id, job.state, CASE job.state WHEN 'failed' THEN job.failed_reason END AS error,
            child.on_failure
     FROM hasten_children AS child LEFT JOIN hasten_jobs AS job ON job.seq = child.child
     WHERE child.parent = :seq AND outcome = 'pending'
     ORDER BY job.state = 'failed' DESC, child.child LIMIT :limit)
