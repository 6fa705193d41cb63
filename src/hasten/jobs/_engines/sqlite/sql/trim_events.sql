-- Delete the events up to row :last, which is to be replaced by a mark.
DELETE FROM hasten_events WHERE queue = :queue AND seq < :last
