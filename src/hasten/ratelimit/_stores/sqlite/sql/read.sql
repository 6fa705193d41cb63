-- The states of the named keys, as one JSON object.
SELECT json_group_object(name, json(state)) FROM hasten_limits
WHERE name IN (SELECT value FROM json_each(:names))
