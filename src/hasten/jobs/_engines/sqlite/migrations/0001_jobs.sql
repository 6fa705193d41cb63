-- A queue's ledger: whether it is paused; how many finished jobs it holds, so that retention need
-- not count them; the last ticket given out. Tickets order its jobs within a state, and its events.
CREATE TABLE hasten_queues (
    name      TEXT PRIMARY KEY,
    paused    INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    ticket    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A job. Its place is (queue, state, rank): a job is in one state, and stands there by its rank.
--   waiting          ticket; negative when it was put in front
--   prioritized      priority * 2^41 + ticket; without the ticket when it was put in front
--   delayed          the ms when it is due
--   active           the ms when it was started
--   completed, failed   ticket, in the order of finishing
-- Its public id is custom_id if its producer chose one, else seq as text.
CREATE TABLE hasten_jobs (
    seq              INTEGER PRIMARY KEY,
    queue            TEXT NOT NULL,
    state            TEXT NOT NULL,
    rank             INTEGER NOT NULL,
    token            TEXT,              -- of the lease, while active
    lease_ms         INTEGER,           -- when the lease runs out
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

-- A foreign key would look for lines at each deletion; most jobs have none.
CREATE TRIGGER hasten_jobs_logs AFTER DELETE ON hasten_jobs WHEN old.log_lines > 0 BEGIN
    DELETE FROM hasten_logs WHERE job = old.seq;
END;

-- What happened, one row for all that one verb did to one queue: body is a JSON array of groups.
CREATE TABLE hasten_events (
    queue  TEXT NOT NULL,
    seq    INTEGER NOT NULL,            -- a ticket
    amount INTEGER NOT NULL,            -- of events in body
    body   TEXT NOT NULL,
    PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

-- job: the last seq given out. None is ever given twice, so that the id of a removed job never
-- becomes another's. schema: how many migrations have been applied.
CREATE TABLE hasten_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO hasten_meta VALUES ('job', 0);
