-- Returns a row if a job can be claimed now, or a delayed job is due before :next_due.
-- :next_due is when the next delayed job was due at the last claim, in ms; 2^62 if there was none.
SELECT 1
WHERE (NOT EXISTS (SELECT 1 FROM hasten_queues WHERE name = :queue AND paused)
       AND (EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'waiting')
         OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'prioritized')))
   OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'delayed' AND rank < :next_due)
