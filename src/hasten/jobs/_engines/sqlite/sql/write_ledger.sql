-- Write the counters of a queue. The column `ticket` holds its last sequence number.
INSERT INTO hasten_queues (name, paused, completed, failed, ticket, event_bytes, linked)
VALUES (:queue, :paused, :completed, :failed, :sequence, :event_bytes, :linked)
ON CONFLICT DO UPDATE
SET paused = excluded.paused, completed = excluded.completed, failed = excluded.failed,
    ticket = excluded.ticket, event_bytes = excluded.event_bytes, linked = excluded.linked
