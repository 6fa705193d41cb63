-- Writes the row of a running worker.
INSERT INTO hasten_workers (queue, id, seen_ms, expires_ms, info) VALUES (:queue, :id, :seen, :expires, :info)
ON CONFLICT (queue, id) DO UPDATE
SET seen_ms = excluded.seen_ms, expires_ms = excluded.expires_ms, info = excluded.info
