-- Returns how many schedules a queue has.
SELECT count(*) FROM hasten_schedules WHERE queue = :queue
