-- Returns JSON: [[seq, id, dedup_key, parent, on_failure, pending, schedule], …] of those jobs in :seqs, a JSON array,
-- that are connected with other jobs.
SELECT json_group_array(json_array(
    seq, coalesce(custom_id, CAST(seq AS TEXT)), dedup_key, parent, on_failure, pending, schedule))
FROM hasten_jobs NOT INDEXED
WHERE seq IN (SELECT value FROM json_each(:seqs))
  AND (dedup_key IS NOT NULL OR parent IS NOT NULL OR pending IS NOT NULL OR schedule IS NOT NULL)
