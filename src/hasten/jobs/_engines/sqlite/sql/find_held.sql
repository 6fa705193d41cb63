-- Returns the schedules whose pending job waits for the end of one of the jobs in :seqs, a JSON array, which has ended.
SELECT id FROM hasten_schedules
WHERE queue = :queue AND waits_for IN (SELECT value FROM json_each(:seqs))
    AND NOT EXISTS
        (SELECT 1 FROM hasten_jobs NOT INDEXED WHERE seq = waits_for AND state NOT IN ('completed', 'failed'))
