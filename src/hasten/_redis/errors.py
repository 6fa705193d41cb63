"""Translation of the errors of `redis`, and of the error replies of servers, to `StoreError`."""

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
"""All exceptions that a request of `redis` may raise. The time-out of asyncio is an OSError."""

# Patterns of error replies after which nothing was applied, with the error to raise and its reason.
# When a command inside a script fails, the reply of the script contains the error of the command.
# Older servers put other text in front, so most patterns match anywhere.
_ERROR_REPLIES: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    (r"OOM |maxmemory", StoreFull, "the server is out of memory: raise maxmemory, or delete data"),
    (
        r"READONLY|read only replica",
        StoreReadOnly,
        "the server is a read-only replica: use the URL of its master",
    ),
    (r"MISCONF", StoreFull, "the server cannot save to disk and rejects writes: see its log"),
    (r"NOREPLICAS", StoreReadOnly, "the server rejects writes: too few replicas are connected"),
    (r"LOADING", StoreUnavailable, "the server is still loading its data"),
    (r"MASTERDOWN", StoreUnavailable, "the server is a replica that has lost its master"),
    (r"CLUSTERDOWN|Hash slot not served", StoreUnavailable, "the cluster is down"),
    (r"^BUSY |BUSY Redis", StoreBusy, "the server is blocked by a long-running script"),
    (r"max number of clients", StoreBusy, "the server has too many connections: raise maxclients"),
)

# Error replies about stored or passed data: a key has the wrong type, or a script cannot process a
# value. A missing permission is reported as an error of the script, too, but is not about data.
_REJECTIONS: Final = re.compile(r"WRONGTYPE|user_script|Error running script|Invalid stream ID")
_PERMISSIONS: Final = re.compile(r"NOPERM|can't (run|access)|no permissions")


def is_moved(error: BaseException) -> bool:
    """Return whether the error is a MOVED redirect: another cluster node now has the key."""
    return isinstance(error, foreign.MovedError)  # in `redis` it is a subclass of AskError


def is_unknown_script(error: BaseException) -> bool:
    """Return whether the server does not have the script whose hash was sent with EVALSHA."""
    return isinstance(error, foreign.NoScriptError)


def is_timeout(error: BaseException) -> bool:
    """Return whether the error is a time-out of asyncio or of `redis`."""
    return isinstance(error, TimeoutError | foreign.TimeoutError)


def is_error_reply(error: BaseException) -> bool:
    """Return whether the server replied with an error. The connection is then still usable."""
    return isinstance(error, foreign.ResponseError)


def suggests_failover(error: StoreError) -> bool:
    """Return whether the error may mean that another server has become the master."""
    return isinstance(error, StoreUnavailable | StoreReadOnly)


def error_from_reply(store: str, error: BaseException) -> StoreError:
    """Return the `StoreError` for an error reply, after which nothing was applied.

    store is the URL of the store, for the message.
    """
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


def connection_error(
    store: str, error: BaseException, timeout_seconds: float, what_happened: str = "cannot connect"
) -> StoreError:
    """Return the `StoreError` for a connection that could not be opened or was lost.

    The other arguments are for the message: store is the URL of the store, timeout_seconds the
    time-out, named if it was exceeded, and what_happened a text for all other errors.
    """
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
        return StoreUnavailable(store, f"no response within {timeout_seconds:g} s")
    return StoreUnavailable(store, f"{what_happened}: {text or type(error).__name__}")
