DELETE FROM hasten_limits WHERE name IN (SELECT value FROM json_each(:names))
