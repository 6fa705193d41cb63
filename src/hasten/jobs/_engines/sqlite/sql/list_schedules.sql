-- Returns a page of the schedules of a queue, by slot. Paused schedules have none, and come last.
SELECT <schedule> FROM hasten_schedules AS schedule
LEFT JOIN hasten_jobs AS job ON job.queue = schedule.queue AND job.custom_id = <pending id>
WHERE schedule.queue = :queue
ORDER BY slot_ms NULLS LAST, id LIMIT :limit OFFSET :offset
