-- Keep a line with a job.
INSERT INTO hasten_logs (job, n, line) VALUES (:seq, :n, :line)
