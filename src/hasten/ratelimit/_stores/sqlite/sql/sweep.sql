-- Delete some rows that have expired, the oldest first.
DELETE FROM hasten_limits WHERE name IN (
    SELECT name FROM hasten_limits WHERE expires_us <= :now_us ORDER BY expires_us LIMIT :limit
)
