"""Job queues on SQLite, side by side."""
