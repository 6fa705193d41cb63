"""The contestants: each module in this folder is one, and names its class `CONTESTANT`.

Each has its handlers twice. On PostgreSQL they are coroutines; on SQLite plain functions, which
FastAPI calls in a thread, for aiosqlite changes threads several times for each statement. None of
the modules postpones annotations: FastAPI reads those of functions within functions.
"""
