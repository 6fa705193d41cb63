-- Add a job of a schedule.
INSERT INTO hasten_jobs
    (seq, queue, state, rank, custom_id, name, data, opts, priority, delay_ms, created_ms, schedule)
VALUES (:seq, :queue, :state, :rank, :id, :task, :data, :opts, :priority, :delay, :now, :schedule)
