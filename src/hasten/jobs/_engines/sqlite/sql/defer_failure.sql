-- Mark a job to be failed by the next worker that claims it, unless it is marked already.
UPDATE hasten_jobs SET deferred_failure = coalesce(deferred_failure, :error) WHERE seq = :seq
