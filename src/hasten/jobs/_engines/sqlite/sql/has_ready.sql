-- :next_due is when the next delayed job is due, as the last claim returned it, in ms (2^62: no delayed job).
-- Returns a row if a job can be claimed now, or is due before :next_due.
SELECT 1
WHERE (NOT EXISTS (SELECT 1 FROM hasten_queues WHERE name = :queue AND paused)
       AND (EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'waiting')
         OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'prioritized')))
   OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'delayed' AND rank < :next_due)
