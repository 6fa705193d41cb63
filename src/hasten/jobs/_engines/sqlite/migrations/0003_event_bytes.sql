-- Add the size of events in bytes: for each row, the size of its body, and for each queue, the total of all events that
-- it ever had. The new column comes before the body, so that SQLite can read it without reading the body.
CREATE TABLE hasten_events_2 (
    queue  TEXT NOT NULL,
    seq    INTEGER NOT NULL,            -- a sequence number
    amount INTEGER NOT NULL,            -- of events in body
    bytes  INTEGER NOT NULL,            -- of body
    body   TEXT NOT NULL,
    PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO hasten_events_2 (queue, seq, amount, bytes, body)
SELECT queue, seq, amount, length(CAST(body AS BLOB)), body FROM hasten_events;
DROP TABLE hasten_events;
ALTER TABLE hasten_events_2 RENAME TO hasten_events;

ALTER TABLE hasten_queues ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0;
