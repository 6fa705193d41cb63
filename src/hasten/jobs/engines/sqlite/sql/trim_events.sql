-- Delete the events that are older than the newest :keep.
DELETE FROM hasten_events WHERE queue = :queue AND seq <
    (SELECT seq FROM (SELECT seq, sum(amount) OVER (ORDER BY seq DESC) AS newer
                      FROM hasten_events WHERE queue = :queue)
     WHERE newer >= :keep ORDER BY seq DESC LIMIT 1)
