-- Delete up to :limit expired rows, those that expired first.
DELETE FROM hasten_limits WHERE name IN (
    SELECT name FROM hasten_limits WHERE expires_us <= :now_us ORDER BY expires_us LIMIT :limit
)
