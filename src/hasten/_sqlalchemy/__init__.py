"""Selects of SQLAlchemy: what they are of, templates of them, and how they are executed."""

from __future__ import annotations

from hasten._extras import require

require("sqlalchemy", extra="sqlalchemy")
