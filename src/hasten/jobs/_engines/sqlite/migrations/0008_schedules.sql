-- Schedules: one row for each. slot_ms is the slot of its pending job, or of the last job that it has added; NULL while
-- the schedule is paused. The id of a job is "repeat:<schedule>:<slot>".
CREATE TABLE hasten_schedules (
    queue       TEXT NOT NULL,
    id          TEXT NOT NULL,
    rule        TEXT NOT NULL,          -- JSON of a `ScheduleRule`
    policy      TEXT NOT NULL,          -- JSON of a `SchedulePolicy`
    task        TEXT NOT NULL,
    data        TEXT NOT NULL,
    opts        TEXT NOT NULL,          -- of its jobs, JSON
    declared    INTEGER NOT NULL,
    paused      INTEGER NOT NULL,
    ended       INTEGER NOT NULL,
    count       INTEGER NOT NULL,       -- how many jobs it has added, including the pending one
    slot_ms     INTEGER,
    previous_ms INTEGER,                -- the slot of the latest run that has started
    dropped     INTEGER NOT NULL DEFAULT 0,    -- how many slots got no run
    skipped     INTEGER NOT NULL DEFAULT 0,    -- how many of them since the latest run has started
    caught_up   INTEGER NOT NULL DEFAULT 0,    -- how many missed slots in a row got a run
    runs        TEXT NOT NULL DEFAULT '[]',    -- JSON: the seqs of jobs that have started, and may not have finished
    waits_for   INTEGER,                       -- the seq of the run whose end the pending job waits for
    PRIMARY KEY (queue, id)
) STRICT;

CREATE INDEX hasten_schedules_slot ON hasten_schedules (queue, slot_ms) WHERE ended = 0;
CREATE INDEX hasten_schedules_held ON hasten_schedules (queue, waits_for) WHERE waits_for IS NOT NULL;
