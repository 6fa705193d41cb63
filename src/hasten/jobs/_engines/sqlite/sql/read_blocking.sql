-- Returns how many pending children a job has, the queue and id of a failed one as "queue:id" (NULL without one), and the
-- error with which the next worker fails the job.
SELECT pending, (SELECT child.queue || ':' || id FROM hasten_children AS child
                 WHERE parent = seq AND outcome = 'failed' ORDER BY child LIMIT 1),
       deferred_failure
FROM hasten_jobs WHERE seq = :seq
