-- Write a queue's row.
INSERT INTO hasten_queues (name, paused, completed, failed, ticket) VALUES (:queue, :paused, :completed, :failed, :ticket)
ON CONFLICT DO UPDATE
SET paused = excluded.paused, completed = excluded.completed, failed = excluded.failed,
    ticket = excluded.ticket
