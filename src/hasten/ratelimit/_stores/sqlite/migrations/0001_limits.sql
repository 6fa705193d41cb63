-- The state of each key, as JSON. Files without a schema version may have this table already.
CREATE TABLE IF NOT EXISTS hasten_limits (
    name       TEXT PRIMARY KEY,    -- the bucket as JSON, ':' and the key in hexadecimal
    expires_us INTEGER NOT NULL,    -- when the state has no effect any more
    state      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hasten_limits_over ON hasten_limits (expires_us);

-- The version of this schema. Job queues in the same file store their version elsewhere.
CREATE TABLE hasten_limits_meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
