-- Returns seq and amount of the newest row of events to delete: the newer rows have at least :keep events or :bytes
-- bytes. Returns no row if all rows are kept.
SELECT seq, amount FROM hasten_events WHERE queue = :queue AND seq <
    (SELECT seq FROM (SELECT seq, sum(amount) OVER newest AS events, sum(bytes) OVER newest AS size
                      FROM hasten_events WHERE queue = :queue WINDOW newest AS (ORDER BY seq DESC))
     WHERE events >= :keep OR size >= :bytes ORDER BY seq DESC LIMIT 1)
ORDER BY seq DESC LIMIT 1
