-- Add children to their parents. Parameters: child, parent, queue, id, on_failure of each child.
INSERT INTO hasten_children (child, parent, queue, id, on_failure, outcome)
VALUES {(?, ?, ?, ?, ?, 'pending')}
