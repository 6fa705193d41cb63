-- Ask for a running job to be stopped. If its worker gives it back, the next one fails it.
UPDATE hasten_jobs SET cancel_requested = 1, deferred_failure = :error WHERE seq = :seq
