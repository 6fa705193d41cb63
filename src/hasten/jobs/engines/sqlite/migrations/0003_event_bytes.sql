-- How much the events take: bytes of each row's body, which stand in front of it so that they are read
-- without it, and of all events that the queue ever had.
-- A table of many large events takes long to copy: it is put aside, and deleted in portions. The newest row
-- of each queue becomes a mark, by which readers see that they have missed events.
ALTER TABLE hasten_events RENAME TO hasten_events_old;
CREATE TABLE hasten_events (
    queue  TEXT NOT NULL,
    seq    INTEGER NOT NULL,            -- a ticket
    amount INTEGER NOT NULL,            -- of events in body
    bytes  INTEGER NOT NULL,            -- of body
    body   TEXT NOT NULL,
    PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO hasten_events (queue, seq, amount, bytes, body)
SELECT queue, seq, amount, 0, '[{"k":"missed","i":[""],"c":' || amount || '}]'
FROM hasten_queues JOIN hasten_events_old ON queue = name
    AND seq = (SELECT max(seq) FROM hasten_events_old WHERE queue = name);

ALTER TABLE hasten_queues ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0;
