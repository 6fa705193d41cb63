-- :keys is a JSON array. Delete the rows of these deduplication keys.
DELETE FROM hasten_deduplication WHERE queue = :queue AND key IN (SELECT value FROM json_each(:keys))
