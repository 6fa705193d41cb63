-- The length of the lease of an active job. A lease that ends later than that began before the clock was set back.
ALTER TABLE hasten_jobs ADD COLUMN lease_length_ms INTEGER;
