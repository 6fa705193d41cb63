-- Reserve :count seqs for new jobs. Returns the last one.
UPDATE hasten_meta SET value = value + :count WHERE name = 'job' RETURNING value
