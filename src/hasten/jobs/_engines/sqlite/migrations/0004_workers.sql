-- One row per queue and running worker. The worker writes it every few seconds. A row that has expired is that of a
-- worker that has died.
CREATE TABLE hasten_workers (
    queue      TEXT NOT NULL,
    id         TEXT NOT NULL,
    seen_ms    INTEGER NOT NULL,        -- when the worker wrote the row
    expires_ms INTEGER NOT NULL,
    info       TEXT NOT NULL,           -- JSON of a `WorkerInfo`
    PRIMARY KEY (queue, id)
) STRICT, WITHOUT ROWID;
