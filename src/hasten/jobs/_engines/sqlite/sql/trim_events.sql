-- Delete the events before row :last, which a mark replaces.
DELETE FROM hasten_events WHERE queue = :queue AND seq < :last
