-- Returns JSON: the names of the queues that have jobs or are paused, sorted.
SELECT json_group_array(name) FROM
    (SELECT name FROM hasten_queues AS known
     WHERE paused OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = known.name) ORDER BY name)
