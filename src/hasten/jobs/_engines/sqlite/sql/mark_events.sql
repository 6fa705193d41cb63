-- Put a mark in the place of a row of events.
UPDATE hasten_events SET bytes = 0, body = :body WHERE queue = :queue AND seq = :seq
