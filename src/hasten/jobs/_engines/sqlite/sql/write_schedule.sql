-- Store a schedule, or change the stored one. What it has counted is kept.
INSERT INTO hasten_schedules (queue, id, rule, policy, task, data, opts, declared, paused, ended, count, slot_ms)
VALUES (:queue, :id, :rule, :policy, :task, :data, :opts, :declared, :paused, :ended, :count, :slot)
ON CONFLICT (queue, id) DO UPDATE
SET rule = excluded.rule, policy = excluded.policy, task = excluded.task, data = excluded.data,
    opts = excluded.opts, declared = excluded.declared, paused = excluded.paused,
    ended = excluded.ended, count = excluded.count, slot_ms = excluded.slot_ms, waits_for = NULL
