-- Store how far a schedule has come.
UPDATE hasten_schedules
SET slot_ms = :slot, count = :count, ended = :ended, previous_ms = :previous, dropped = :dropped,
    skipped = :skipped, caught_up = :caught_up, runs = :runs, waits_for = NULL
WHERE queue = :queue AND id = :id
