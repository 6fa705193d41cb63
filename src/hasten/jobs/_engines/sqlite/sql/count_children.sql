-- Returns JSON: {outcome: number of children, "add_calls": number}, without outcomes that no child has.
SELECT json_group_object(outcome, amount) FROM
    (SELECT outcome, count(*) AS amount FROM hasten_children WHERE parent = :seq GROUP BY outcome
     UNION ALL SELECT 'add_calls', coalesce(add_calls, 0) FROM hasten_jobs WHERE seq = :seq)
