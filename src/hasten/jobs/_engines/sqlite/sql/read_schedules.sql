-- Find schedules by id. :ids is a JSON array.
SELECT <schedule> FROM hasten_schedules AS schedule
LEFT JOIN hasten_jobs AS job ON job.queue = schedule.queue AND job.custom_id = <pending id>
WHERE schedule.queue = :queue AND schedule.id IN (SELECT value FROM json_each(:ids))
