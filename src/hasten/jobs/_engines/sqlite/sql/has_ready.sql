-- :next_due is the ms when the next delayed job was due at the last look (2^62: there was none).
-- Returns a row if a job can be claimed now, or is due sooner than was known.
SELECT 1
WHERE (NOT EXISTS (SELECT 1 FROM hasten_queues WHERE name = :queue AND paused)
       AND (EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'waiting')
         OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'prioritized')))
   OR EXISTS (SELECT 1 FROM hasten_jobs WHERE queue = :queue AND state = 'delayed' AND rank < :next_due)
