-- :owners is a JSON array of [key, seq]. Delete the rows of the deduplication keys that these jobs own.
DELETE FROM hasten_deduplication WHERE rowid IN
    (SELECT taken.rowid FROM json_each(:owners) AS gone CROSS JOIN hasten_deduplication AS taken
     ON taken.queue = :queue AND taken.key = json_extract(gone.value, '$[0]')
    AND taken.owner = json_extract(gone.value, '$[1]'))
