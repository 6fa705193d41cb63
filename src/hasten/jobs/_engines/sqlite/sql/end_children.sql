-- Record how children have ended. Parameters: child, outcome, value of each child.
UPDATE hasten_children SET outcome = ended.outcome, value = ended.value
FROM (WITH row (child, outcome, value)
      AS (VALUES {(?, ?, ?)}) SELECT * FROM row) AS ended
WHERE hasten_children.child = ended.child
