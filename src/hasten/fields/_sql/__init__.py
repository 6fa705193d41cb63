"""Fields of what SQLAlchemy selects."""

from __future__ import annotations

from hasten._extras import require

require("sqlalchemy", extra="sqlalchemy")

from hasten.fields._sql.running import (  # noqa: E402
    AsyncExecutor,
    Executor,
    Steps,
    dialect_of,
    run,
    run_async,
)
from hasten.fields._sql.shapes import Shape, Shapes  # noqa: E402
from hasten.fields._sql.statements import Selection  # noqa: E402

__all__ = [
    "AsyncExecutor",
    "Executor",
    "Selection",
    "Shape",
    "Shapes",
    "Steps",
    "dialect_of",
    "run",
    "run_async",
]
