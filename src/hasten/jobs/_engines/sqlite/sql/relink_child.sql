-- Make a finished child pending again. Returns its parent; no row if it is no child, or is pending.
UPDATE hasten_children SET outcome = 'pending', value = NULL
WHERE child = :seq AND outcome <> 'pending' RETURNING parent
