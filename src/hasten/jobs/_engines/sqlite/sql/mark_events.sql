-- Replace the events in a row by a mark, which tells readers that events were deleted.
UPDATE hasten_events SET bytes = 0, body = :body WHERE queue = :queue AND seq = :seq
