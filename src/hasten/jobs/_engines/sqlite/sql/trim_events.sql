-- Delete the rows of events before row :last, which mark_events then replaces.
DELETE FROM hasten_events WHERE queue = :queue AND seq < :last
