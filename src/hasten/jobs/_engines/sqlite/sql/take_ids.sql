-- Give out ids of jobs. Returns the last of :count.
UPDATE hasten_meta SET value = value + :count WHERE name = 'job' RETURNING value
