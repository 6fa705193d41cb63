-- One row per queue, called its ledger. completed and failed are the numbers of finished jobs, so that retention need
-- not count them. ticket is the last sequence number that was issued. Sequence numbers order the jobs within a state,
-- and the events.
CREATE TABLE hasten_queues (
    name      TEXT PRIMARY KEY,
    paused    INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    ticket    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per job. Within a queue and a state, rank orders the jobs. It is:
--   waiting             a sequence number; negative for a job in front of the others
--   prioritized         priority * 2^41 + a sequence number; without the sequence number for a job in front
--   delayed             when the job is due, in ms
--   active              when the job started, in ms
--   completed, failed   a sequence number, in the order of finishing
-- The public id of a job is custom_id if its producer chose an id, else seq as text.
CREATE TABLE hasten_jobs (
    seq              INTEGER PRIMARY KEY,
    queue            TEXT NOT NULL,
    state            TEXT NOT NULL,
    rank             INTEGER NOT NULL,
    token            TEXT,              -- of the lease, while active
    lease_ms         INTEGER,           -- when the lease expires
    custom_id        TEXT,
    name             TEXT NOT NULL,
    data             TEXT NOT NULL,
    opts             TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    delay_ms         INTEGER NOT NULL,
    created_ms       INTEGER NOT NULL,
    attempts_made    INTEGER NOT NULL DEFAULT 0,
    attempts_started INTEGER NOT NULL DEFAULT 0,
    crashes          INTEGER NOT NULL DEFAULT 0,
    processed_ms     INTEGER,
    finished_ms      INTEGER,
    worker           TEXT,
    progress         TEXT,
    result           TEXT,
    failed_reason    TEXT,
    stacktrace       TEXT,
    deferred_failure TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    log_lines        INTEGER NOT NULL DEFAULT 0  -- how many were ever written; only the newest are kept
) STRICT;

CREATE INDEX hasten_jobs_place ON hasten_jobs (queue, state, rank);
CREATE UNIQUE INDEX hasten_jobs_custom_id ON hasten_jobs (queue, custom_id) WHERE custom_id IS NOT NULL;

CREATE TABLE hasten_logs (
    job  INTEGER NOT NULL,
    n    INTEGER NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (job, n)
) STRICT, WITHOUT ROWID;

-- Deletes the log lines of a deleted job. A foreign key would search for them each time, but most jobs have none.
CREATE TRIGGER hasten_jobs_logs AFTER DELETE ON hasten_jobs WHEN old.log_lines > 0 BEGIN
    DELETE FROM hasten_logs WHERE job = old.seq;
END;

-- Events: one row for all events that one operation emits for a queue. body is a JSON array of groups of events.
CREATE TABLE hasten_events (
    queue  TEXT NOT NULL,
    seq    INTEGER NOT NULL,            -- a sequence number
    amount INTEGER NOT NULL,            -- of events in body
    body   TEXT NOT NULL,
    PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

-- Two rows: "job" is the last seq that was assigned to a job. No seq is assigned twice, so the id of a removed job is
-- never reused. "schema" is the number of migrations that were run.
CREATE TABLE hasten_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO hasten_meta VALUES ('job', 0);
