-- Returns JSON: [[rank, seq, id, when the job finished or was added], …] of the next :limit jobs in :state after the
-- position (:rank, :seq).
SELECT json_group_array(json_array(rank, seq, coalesce(custom_id, CAST(seq AS TEXT)), coalesce(finished_ms, created_ms)))
FROM (SELECT * FROM hasten_jobs WHERE queue = :queue AND state = :state AND (rank, seq) > (:rank, :seq)
      ORDER BY rank, seq LIMIT :limit)
