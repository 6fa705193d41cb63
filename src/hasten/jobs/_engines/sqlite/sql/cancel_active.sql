-- Request that a running job stops. If its worker hands it back, the next worker that claims it fails it.
UPDATE hasten_jobs SET cancel_requested = 1, deferred_failure = :error WHERE seq = :seq
