"""Tools for SQLAlchemy selects: analyze one, cache what was built from it, and execute it."""

from __future__ import annotations

from hasten._extras import require

require("sqlalchemy", extra="sqlalchemy")
