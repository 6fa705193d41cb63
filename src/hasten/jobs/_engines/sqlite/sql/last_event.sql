-- Returns the seq of the newest events and their number.
SELECT seq, amount FROM hasten_events WHERE queue = :queue ORDER BY seq DESC LIMIT 1
