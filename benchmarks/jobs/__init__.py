"""A benchmark that compares job queues on SQLite."""
