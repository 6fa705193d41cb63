-- Returns how many pending children a job has, and the queue and id of a failed one as "queue:id", NULL without one.
SELECT pending, (SELECT child.queue || ':' || id FROM hasten_children AS child
                 WHERE parent = seq AND outcome = 'failed' ORDER BY child LIMIT 1)
FROM hasten_jobs WHERE seq = :seq
