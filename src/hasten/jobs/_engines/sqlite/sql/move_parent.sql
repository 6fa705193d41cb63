-- Move a parent to another state.
UPDATE hasten_jobs SET state = :state, rank = :rank, delay_ms = :delay WHERE seq = :seq
