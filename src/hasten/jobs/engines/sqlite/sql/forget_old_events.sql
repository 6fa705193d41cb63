-- Delete :limit rows of the events that a migration has put aside.
DELETE FROM hasten_events_old WHERE (queue, seq) IN (SELECT queue, seq FROM hasten_events_old LIMIT :limit)
