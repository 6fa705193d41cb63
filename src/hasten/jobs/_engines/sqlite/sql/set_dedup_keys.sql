-- Store in jobs the deduplication keys that they have taken. Parameters: seq, key of each job.
UPDATE hasten_jobs NOT INDEXED SET dedup_key = taken.key
FROM (WITH row (seq, key) AS (VALUES {(?, ?)}) SELECT * FROM row) AS taken
WHERE hasten_jobs.seq = taken.seq
