"""Make a Python backend fast: background jobs, compression, pages and fields, rate limits.

Each capability is a package of its own and is imported from there (``from hasten.jobs import
Queue``). This module has what they share, and imports none of them, so nobody pays for what they do
not use. What a package exports in ``__all__`` is public; everything else may change.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hasten._clock import Clock
    from hasten._durations import Duration
    from hasten._responses import EncodedResponse
    from hasten._sizes import Size
    from hasten._store import Store

__version__ = "0.1.0"

__all__ = ["Clock", "Duration", "EncodedResponse", "Size", "Store", "__version__"]

_MODULES = {
    "Clock": "hasten._clock",
    "Duration": "hasten._durations",
    "EncodedResponse": "hasten._responses",
    "Size": "hasten._sizes",
    "Store": "hasten._store",
}


def __getattr__(name: str) -> object:
    # Nothing is imported before it is needed: `python -m hasten` comes by here while a `json.py` of
    # the working directory would still be taken for the standard library's.
    if name not in _MODULES:
        raise AttributeError(f"module 'hasten' has no attribute {name!r}")
    found: object = getattr(__import__(_MODULES[name], fromlist=[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


del TYPE_CHECKING
