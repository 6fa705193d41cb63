-- How long the lease of an active job was given for. One that ends further ahead than that was given
-- before the clock was set back.
ALTER TABLE hasten_jobs ADD COLUMN lease_length_ms INTEGER;
