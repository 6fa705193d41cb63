"""Reading the requested fields of rows with SQLAlchemy."""

from hasten import _sqlalchemy  # noqa: F401  # raises an error that names the extra to install
