-- Store what happened to a queue: amount events, in body.
INSERT INTO hasten_events (queue, seq, amount, body) VALUES (:queue, :seq, :amount, :body)
