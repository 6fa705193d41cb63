-- Write rows of deduplication keys. Parameters: queue, key, owner, expires_ms, window_ms, next_name, next_opts, next_data
-- of each.
INSERT INTO hasten_deduplication (queue, key, owner, expires_ms, window_ms, next_name, next_opts, next_data)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?)}
ON CONFLICT DO UPDATE
SET owner = excluded.owner, removed = 0, expires_ms = excluded.expires_ms, window_ms = excluded.window_ms,
    next_name = excluded.next_name, next_opts = excluded.next_opts, next_data = excluded.next_data
