"""A benchmark that compares libraries for pages, cursors and fields on PostgreSQL and SQLite."""
