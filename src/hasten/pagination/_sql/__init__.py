"""Pages of what SQLAlchemy selects."""

from __future__ import annotations

from hasten._extras import require

require("sqlalchemy", extra="sqlalchemy")
