-- :keys is a JSON array. Delete the rows of these deduplication keys.
DELETE FROM hasten_deduplication WHERE rowid IN
    (SELECT taken.rowid FROM json_each(:keys) AS free CROSS JOIN hasten_deduplication AS taken
     ON taken.queue = :queue AND taken.key = free.value)
