-- One row per child of a job that exists. child and parent are seqs of jobs, and the order of children is that of their
-- seqs. queue and id are those of the child, which may have been deleted. outcome is a `ChildOutcome`, value the result
-- of a completed child as JSON, or the error of an ignored or failed one.
CREATE TABLE hasten_children (
    child      INTEGER PRIMARY KEY,
    parent     INTEGER NOT NULL,
    queue      TEXT NOT NULL,
    id         TEXT NOT NULL,
    on_failure TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    value      TEXT
) STRICT;

CREATE INDEX hasten_children_parent ON hasten_children (parent);
CREATE INDEX hasten_children_failed ON hasten_children (parent) WHERE outcome = 'failed';

-- Deletes what a deleted parent knows about its children.
CREATE TRIGGER hasten_jobs_children AFTER DELETE ON hasten_jobs WHEN old.pending IS NOT NULL BEGIN
    DELETE FROM hasten_children WHERE parent = old.seq;
END;

-- How many calls of `ctx.children.add` the children of a job come from; see `Parked`.
ALTER TABLE hasten_jobs ADD COLUMN add_calls INTEGER;
