-- The length of the lease of an active job. If the lease ends later than now + length, the clock was set back.
ALTER TABLE hasten_jobs ADD COLUMN lease_length_ms INTEGER;
