"""The contestants. Each module has one: a class with the name `CONTESTANT`.

Each has its handlers twice. For PostgreSQL they are async. For SQLite they are blocking functions,
which FastAPI calls in a thread: aiosqlite would switch threads several times for each statement. No
module imports annotations from __future__, because FastAPI evaluates those of nested functions.
"""
