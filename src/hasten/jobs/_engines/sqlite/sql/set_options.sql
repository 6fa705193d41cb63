-- Change the stored options of a job.
UPDATE hasten_jobs SET opts = :opts WHERE seq = :seq
