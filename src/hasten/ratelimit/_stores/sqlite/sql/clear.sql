DELETE FROM hasten_limits
