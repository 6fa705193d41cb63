-- Returns JSON: seqs.
SELECT json_group_array(seq) FROM
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state
     ORDER BY rank DESC, seq DESC LIMIT :limit OFFSET :offset)
