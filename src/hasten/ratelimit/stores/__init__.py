"""Places that keep counts: this process, Redis, a SQLite file."""
