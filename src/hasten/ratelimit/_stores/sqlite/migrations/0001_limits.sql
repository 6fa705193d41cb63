-- The state of each key, as JSON. Files from before the schema had a version have this table.
CREATE TABLE IF NOT EXISTS hasten_limits (
    name       TEXT PRIMARY KEY,    -- the bucket as JSON, ':' and the key in hexadecimal
    expires_us INTEGER NOT NULL,    -- when the row is of no use any more
    state      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hasten_limits_over ON hasten_limits (expires_us);

-- The version of this schema. The file may also hold jobs, which have a version of their own.
CREATE TABLE hasten_limits_meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
