-- Request that a running job stops. If its worker releases it, the next worker fails it.
UPDATE hasten_jobs SET cancel_requested = 1, deferred_failure = :error WHERE seq = :seq
