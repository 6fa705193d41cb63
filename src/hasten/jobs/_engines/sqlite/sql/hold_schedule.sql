-- Store that the pending job of a schedule waits for the end of the run :seq; NULL ends that.
UPDATE hasten_schedules SET waits_for = :waits_for WHERE queue = :queue AND id = :id
