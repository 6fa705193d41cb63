-- Returns JSON: {state: number of jobs}, without states that have no jobs.
SELECT json_group_object(state, amount) FROM
    (SELECT state, count(*) AS amount FROM hasten_jobs WHERE queue = :queue GROUP BY state)
