-- Delete the log lines up to number :last.
DELETE FROM hasten_logs WHERE job = :seq AND n <= :last
