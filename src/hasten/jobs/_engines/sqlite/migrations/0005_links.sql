-- What connects a job with other jobs; NULL in most jobs. dedup_key is its deduplication key, parent the seq of its
-- parent, on_failure what its failure does to the parent, pending how many unfinished children a parent has, and
-- schedule the id of the schedule that added it.
ALTER TABLE hasten_jobs ADD COLUMN dedup_key TEXT;
ALTER TABLE hasten_jobs ADD COLUMN parent INTEGER;
ALTER TABLE hasten_jobs ADD COLUMN on_failure TEXT;
ALTER TABLE hasten_jobs ADD COLUMN pending INTEGER;
ALTER TABLE hasten_jobs ADD COLUMN schedule TEXT;

-- Whether the queue has ever had a job with such a connection. If not, no operation looks for one.
ALTER TABLE hasten_queues ADD COLUMN linked INTEGER NOT NULL DEFAULT 0;
