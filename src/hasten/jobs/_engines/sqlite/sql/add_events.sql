-- Store the events of a verb: their number, and body, which has so many bytes.
INSERT INTO hasten_events (queue, seq, amount, bytes, body) VALUES (:queue, :seq, :amount, :bytes, :body)
