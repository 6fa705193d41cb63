-- Returns the seq of the newest row of events, and the number of its events.
SELECT seq, amount FROM hasten_events WHERE queue = :queue ORDER BY seq DESC LIMIT 1
