-- :value is JSON.
UPDATE hasten_jobs SET progress = :value
WHERE seq = :seq AND queue = :queue AND coalesce(custom_id, CAST(seq AS TEXT)) = :id
