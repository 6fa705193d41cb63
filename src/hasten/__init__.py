"""Make a Python backend fast: background jobs, compression, pagination, rate limits.

Each capability is a package of its own and is imported from there (``from hasten.jobs import
Queue``). This module imports none of them, so nobody pays for what they do not use.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
