-- The deduplication keys that are taken, one row per key; key is the name of the task, a colon and the key. A row is
-- deleted when its owner ends, or some time after it has expired.
CREATE TABLE hasten_deduplication (
    queue      TEXT NOT NULL,
    key        TEXT NOT NULL,
    owner      INTEGER NOT NULL,           -- the seq of the job that owns the key
    removed    INTEGER NOT NULL DEFAULT 0, -- 1 if the key was removed by hand: it is free, but its next job is kept
    expires_ms INTEGER,                    -- until when the key is taken; NULL: until its owner ends
    window_ms  INTEGER,                    -- expires_ms minus when the key was taken
    next_name  TEXT,                       -- the job that is added when the owner ends; NULL if there is none
    next_opts  TEXT,
    next_data  TEXT,
    PRIMARY KEY (queue, key)
) STRICT;

CREATE INDEX hasten_deduplication_expiry ON hasten_deduplication (queue, expires_ms) WHERE expires_ms IS NOT NULL;
