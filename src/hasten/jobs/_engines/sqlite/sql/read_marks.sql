-- Returns JSON: a number for each of the queues in the JSON array :queues. It changes with the last
-- ticket, and when the queue is paused or goes on. Each new job and event takes a ticket.
SELECT json_group_object(name, 2 * ticket + paused)
FROM json_each(:queues) AS wanted CROSS JOIN hasten_queues ON name = wanted.value
