-- Read the next :limit jobs in :state after (:rank, :seq).
-- Returns JSON: [[rank, seq, id, when it finished or was added], …].
SELECT json_group_array(json_array(rank, seq, coalesce(custom_id, CAST(seq AS TEXT)), coalesce(finished_ms, created_ms)))
FROM (SELECT * FROM hasten_jobs WHERE queue = :queue AND state = :state AND (rank, seq) > (:rank, :seq)
      ORDER BY rank, seq LIMIT :limit)
