-- Store a row of events. :amount is their number, :bytes the size of :body.
INSERT INTO hasten_events (queue, seq, amount, bytes, body) VALUES (:queue, :seq, :amount, :bytes, :body)
