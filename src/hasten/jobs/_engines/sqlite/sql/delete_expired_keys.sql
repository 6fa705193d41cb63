-- Delete at most :limit rows of deduplication keys that have expired.
DELETE FROM hasten_deduplication WHERE rowid IN
    (SELECT rowid FROM hasten_deduplication INDEXED BY hasten_deduplication_expiry
     WHERE queue = :queue AND expires_ms IS NOT NULL AND expires_ms <= :now LIMIT :limit)
