-- Store what happened to a queue: amount events, in body, which takes so many bytes.
INSERT INTO hasten_events (queue, seq, amount, bytes, body) VALUES (:queue, :seq, :amount, :bytes, :body)
