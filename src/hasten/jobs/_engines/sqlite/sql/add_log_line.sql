-- Add a line to the log of a job.
INSERT INTO hasten_logs (job, n, line) VALUES (:seq, :n, :line)
