"""Pagination of SQLAlchemy selects."""

from hasten import _sqlalchemy  # noqa: F401  # raises an error that names the extra to install
