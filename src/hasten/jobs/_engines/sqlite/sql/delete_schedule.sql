-- Delete a schedule.
DELETE FROM hasten_schedules WHERE queue = :queue AND id = :id
