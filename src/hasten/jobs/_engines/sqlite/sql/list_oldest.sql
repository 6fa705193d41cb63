-- Returns JSON: the seqs of a page of the jobs in a state, in the order of claiming or finishing.
SELECT json_group_array(seq) FROM
    (SELECT seq FROM hasten_jobs WHERE queue = :queue AND state = :state ORDER BY rank, seq LIMIT :limit OFFSET :offset)
