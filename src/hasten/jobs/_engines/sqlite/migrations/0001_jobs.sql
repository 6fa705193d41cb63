-- The ledger of a queue: whether it is paused; how many finished jobs it has, so that retention need not count them;
-- the last sequence number (ticket). Sequence numbers order its jobs within a state, and its events.
CREATE TABLE hasten_queues (
    name      TEXT PRIMARY KEY,
    paused    INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    ticket    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A job. Its place is (queue, state, rank). The rank is:
--   waiting             a sequence number; negative for a job in front
--   prioritized         priority * 2^41 + a sequence number; without it for a job in front
--   delayed             when the job is due, in ms
--   active              when the job started, in ms
--   completed, failed   a sequence number, in the order of finishing
-- Its public id is custom_id if its producer chose one, else seq as text.
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
    log_lines        INTEGER NOT NULL DEFAULT 0  -- ever written; the newest are kept
) STRICT;

CREATE INDEX hasten_jobs_place ON hasten_jobs (queue, state, rank);
CREATE UNIQUE INDEX hasten_jobs_custom_id ON hasten_jobs (queue, custom_id) WHERE custom_id IS NOT NULL;

CREATE TABLE hasten_logs (
    job  INTEGER NOT NULL,
    n    INTEGER NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (job, n)
) STRICT, WITHOUT ROWID;

-- A foreign key would search for log lines at each deletion, but most jobs have none.
CREATE TRIGGER hasten_jobs_logs AFTER DELETE ON hasten_jobs WHEN old.log_lines > 0 BEGIN
    DELETE FROM hasten_logs WHERE job = old.seq;
END;

-- Events: one row for all events of one verb and queue. body is a JSON array of groups.
CREATE TABLE hasten_events (
    queue  TEXT NOT NULL,
    seq    INTEGER NOT NULL,            -- a sequence number
    amount INTEGER NOT NULL,            -- of events in body
    body   TEXT NOT NULL,
    PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

-- job: the last assigned seq. No seq is assigned twice, so the id of a removed job is never reused.
-- schema: the number of applied migrations.
CREATE TABLE hasten_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO hasten_meta VALUES ('job', 0);
