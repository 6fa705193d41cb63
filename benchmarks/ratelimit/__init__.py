"""hasten's limits beside those of others."""
