-- Make a deduplication key free, but keep its row if a next job is kept there. Returns a row if the key was taken at :now.
UPDATE hasten_deduplication SET removed = 1
WHERE queue = :queue AND key = :key AND NOT removed
  AND (expires_ms IS NULL OR (expires_ms > :now AND expires_ms <= :now + window_ms))
RETURNING next_name IS NOT NULL
