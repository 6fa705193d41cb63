-- Move jobs to a ready state. Parameters: seq, state, rank of each job.
UPDATE hasten_jobs NOT INDEXED
SET state = place.state, rank = place.rank, delay_ms = 0
FROM (WITH row (seq, state, rank)
      AS (VALUES {(?, ?, ?)}) SELECT * FROM row) AS place
WHERE hasten_jobs.seq = place.seq
