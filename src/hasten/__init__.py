"""Make a Python backend fast: background jobs, compression, pages and fields, rate limits.

Each capability is a package of its own: ``from hasten.jobs import Queue``. This module exports the
names that several capabilities share. It imports no capability, so that unused ones cost nothing.
The names in the ``__all__`` of a package are public; everything else may change.
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
    # Import modules late: `python -m hasten` imports this module before `__main__` has moved the
    # working directory to the end of `sys.path`. Until then, a `json.py` in the working directory
    # would be imported instead of the standard library's.
    if name not in _MODULES:
        raise AttributeError(f"module 'hasten' has no attribute {name!r}")
    found: object = getattr(__import__(_MODULES[name], fromlist=[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


del TYPE_CHECKING
