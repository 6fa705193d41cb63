-- Store which runs of a schedule may not have finished. :runs is a JSON array of seqs.
UPDATE hasten_schedules SET runs = :runs WHERE queue = :queue AND id = :id
