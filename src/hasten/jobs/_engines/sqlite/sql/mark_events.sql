-- Replace a row of events by a mark.
UPDATE hasten_events SET bytes = 0, body = :body WHERE queue = :queue AND seq = :seq
