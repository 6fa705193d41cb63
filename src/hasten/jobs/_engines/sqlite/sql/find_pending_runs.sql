-- Returns JSON: those of the jobs in :seqs, a JSON array, that are the pending job of a schedule.
SELECT json_group_array(seq)
FROM hasten_jobs AS job NOT INDEXED
CROSS JOIN hasten_schedules AS schedule ON schedule.queue = job.queue AND schedule.id = job.schedule
WHERE job.seq IN (SELECT value FROM json_each(:seqs)) AND job.schedule IS NOT NULL
    AND job.state NOT IN ('completed', 'failed') AND job.custom_id = <pending id>
    AND schedule.previous_ms IS NOT schedule.slot_ms
