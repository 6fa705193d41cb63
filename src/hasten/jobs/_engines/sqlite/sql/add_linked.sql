-- Add jobs that are parents or children; one row of parameters for each job.
INSERT INTO hasten_jobs
    (seq, queue, state, rank, custom_id, name, data, opts, priority, delay_ms, created_ms, parent, on_failure, pending)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)}
