"""Translate errors of the client library, and error replies of the server, to hasten's errors."""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions as foreign

from hasten.errors import (
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreRejected,
    StoreUnavailable,
)

FOREIGN: Final = (foreign.RedisError, foreign.RedisClusterException, OSError)
"""What a request may raise. (A time-out of asyncio is an OSError, too.)"""

# Error replies after which nothing was applied. Scripts pass on the error of a command in them, in
# older servers behind another text.
_ERROR_REPLIES: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    (r"OOM |maxmemory", StoreFull, "out of memory: raise maxmemory, or remove jobs"),
    (r"READONLY|read only replica", StoreReadOnly, "read-only replica: use the URL of its master"),
    (r"MISCONF", StoreFull, "cannot save to disk and refuses writes: see the log of the server"),
    (r"NOREPLICAS", StoreReadOnly, "refuses writes: too few replicas are connected"),
    (r"LOADING", StoreUnavailable, "still loading its data"),
    (r"MASTERDOWN", StoreUnavailable, "a replica without a connection to its master"),
    (r"CLUSTERDOWN|Hash slot not served", StoreUnavailable, "the cluster is down"),
    (r"^BUSY |BUSY Redis", StoreBusy, "busy with a script that runs for too long"),
    (r"max number of clients", StoreBusy, "too many connections: raise maxclients"),
)

# Error replies about data: a key holds another type, or a script cannot process a value. A missing
# permission is reported as an error of the script, too, but is not about data.
_REJECTIONS: Final = re.compile(r"WRONGTYPE|user_script|Error running script|Invalid stream ID")
_PERMISSIONS: Final = re.compile(r"NOPERM|can't (run|access)|no permissions")


def is_moved(error: BaseException) -> bool:
    """Return whether another node of the cluster has the slot now."""
    return isinstance(error, foreign.MovedError)  # to the library a kind of AskError


def is_unknown_script(error: BaseException) -> bool:
    return isinstance(error, foreign.NoScriptError)


def is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | foreign.TimeoutError)


def is_error_reply(error: BaseException) -> bool:
    """Return whether the server replied with an error, and the connection can be used further."""
    return isinstance(error, foreign.ResponseError)


def suggests_failover(error: StoreError) -> bool:
    """Return whether another server may have taken over."""
    return isinstance(error, StoreUnavailable | StoreReadOnly)


def error_of_reply(store: str, error: BaseException) -> StoreError:
    """Return the error for an error reply. Nothing was applied."""
    text = str(error)
    if isinstance(error, foreign.AskError | foreign.TryAgainError):
        return StoreUnavailable(store, "the cluster is moving this key to another node")
    if isinstance(error, foreign.OutOfMemoryError):
        text = f"OOM {text}"
    elif isinstance(error, foreign.ReadOnlyError):
        text = f"READONLY {text}"
    for pattern, kind, meaning in _ERROR_REPLIES:
        if re.search(pattern, text):
            return kind(store, meaning)
    if _REJECTIONS.search(text) and not _PERMISSIONS.search(text):
        return StoreRejected(store, text)
    return StoreError(store, text)


def unreachable(store: str, error: BaseException, seconds: float) -> StoreError:
    """Return the error for a server that could not be reached. Nothing was sent."""
    text = str(error)
    for pattern, kind, meaning in _ERROR_REPLIES:
        if re.search(pattern, text) or (
            pattern == "LOADING" and isinstance(error, foreign.BusyLoadingError)
        ):
            return kind(store, meaning)
    if isinstance(error, foreign.AuthenticationError | foreign.NoPermissionError) or re.search(
        r"NOAUTH|WRONGPASS|invalid username-password|Authentication required", text
    ):
        return StoreUnavailable(store, f"authentication failed: {text}")
    if is_timeout(error):
        return StoreUnavailable(store, f"no response within {seconds:g} s")
    return StoreUnavailable(store, f"cannot connect: {text or type(error).__name__}")
