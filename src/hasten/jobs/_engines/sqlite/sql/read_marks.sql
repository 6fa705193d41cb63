-- Returns JSON: {queue: number} for the queues in the JSON array :queues. The number changes with each new job and
-- event, which use up sequence numbers (ticket), and when the queue is paused or resumed.
SELECT json_group_object(name, 2 * ticket + paused)
FROM json_each(:queues) AS wanted CROSS JOIN hasten_queues ON name = wanted.value
