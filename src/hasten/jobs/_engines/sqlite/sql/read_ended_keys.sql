-- :owners is a JSON array of [key, seq]. Returns JSON: [[key, expires_ms, next_name, next_opts, next_data], …] of the
-- deduplication keys that these jobs own. Keys that have expired are included.
SELECT json_group_array(json_array(key, expires_ms, next_name, next_opts, next_data))
FROM (SELECT taken.* FROM json_each(:owners) AS ended CROSS JOIN hasten_deduplication AS taken
      ON taken.queue = :queue AND taken.key = json_extract(ended.value, '$[0]')
     AND taken.owner = json_extract(ended.value, '$[1]')
      ORDER BY ended.key)
