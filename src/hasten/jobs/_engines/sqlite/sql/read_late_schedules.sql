-- Returns the schedules whose pending job was due before :before and has not started, or is missing.
SELECT <schedule> FROM hasten_schedules AS schedule
LEFT JOIN hasten_jobs AS job ON job.queue = schedule.queue AND job.custom_id = <pending id>
WHERE schedule.queue = :queue AND slot_ms < :before AND ended = 0 AND waits_for IS NULL
    AND coalesce(job.state, '') != 'active' AND NOT (coalesce(job.state, '') = 'delayed' AND job.rank >= :before)
ORDER BY slot_ms LIMIT :limit
