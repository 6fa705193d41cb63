"""Pages of what a database, or anything in order, holds."""
