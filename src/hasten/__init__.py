"""Make a Python backend fast: background jobs, compression, pages and fields, rate limits.

Each capability is a package of its own and is imported from there (``from hasten.jobs import
Queue``). This module has what they share, and imports none of them, so nobody pays for what they do
not use. What a package exports in ``__all__`` is public; everything else may change.
"""

from hasten._clock import Clock
from hasten._durations import Duration
from hasten._sizes import Size
from hasten._store import Store

__version__ = "0.1.0"

__all__ = ["Clock", "Duration", "Size", "Store", "__version__"]
