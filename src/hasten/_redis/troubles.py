"""What the client library raises, and the server answers, in our words."""

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
"""What talking to a server may raise. (A time-out of asyncio's is an OSError, too.)"""

# What a server answers when it did nothing. Scripts pass on what a command of theirs was answered,
# in older servers behind some words of their own.
_ANSWERS: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    (r"OOM |maxmemory", StoreFull, "its memory is full: raise maxmemory, or remove jobs"),
    (r"READONLY|read only replica", StoreReadOnly, "it is a read-only replica: name its master"),
    (r"MISCONF", StoreFull, "it cannot save to its disk, and takes no writes: see its log"),
    (r"NOREPLICAS", StoreReadOnly, "too few of its replicas are connected for it to take writes"),
    (r"LOADING", StoreUnavailable, "it is still loading its data"),
    (r"MASTERDOWN", StoreUnavailable, "it is a replica that has lost its master"),
    (r"CLUSTERDOWN|Hash slot not served", StoreUnavailable, "its cluster is down"),
    (r"^BUSY |BUSY Redis", StoreBusy, "a script of somebody has kept it busy for too long"),
    (r"max number of clients", StoreBusy, "it takes no more connections: raise maxclients"),
)

# What a server answers where its data, or ours, is at fault: a key holds another type, or a command
# in a script, or the script itself, could not do with a value. A user who lacks a permission gets
# errors of scripts, too; those are not about data.
_REJECTIONS: Final = re.compile(r"WRONGTYPE|user_script|Error running script|Invalid stream ID")
_PERMISSIONS: Final = re.compile(r"NOPERM|can't (run|access)|no permissions")


def is_moved(error: BaseException) -> bool:
    """Another node of the cluster has the slot now."""
    return isinstance(error, foreign.MovedError)  # to the library a kind of AskError


def is_unknown_script(error: BaseException) -> bool:
    return isinstance(error, foreign.NoScriptError)


def is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | foreign.TimeoutError)


def is_answer(error: BaseException) -> bool:
    """The server has answered, and the connection is as good as before."""
    return isinstance(error, foreign.ResponseError)


def doubts_topology(error: StoreError) -> bool:
    """It may be another server's turn."""
    return isinstance(error, StoreUnavailable | StoreReadOnly)


def answered(store: str, error: BaseException) -> StoreError:
    """Our error for an answer that is one. Nothing was done."""
    text = str(error)
    if isinstance(error, foreign.AskError | foreign.TryAgainError):
        return StoreUnavailable(store, "its cluster is moving this queue to another node")
    if isinstance(error, foreign.OutOfMemoryError):
        text = f"OOM {text}"
    elif isinstance(error, foreign.ReadOnlyError):
        text = f"READONLY {text}"
    for pattern, kind, meaning in _ANSWERS:
        if re.search(pattern, text):
            return kind(store, meaning)
    if _REJECTIONS.search(text) and not _PERMISSIONS.search(text):
        return StoreRejected(store, text)
    return StoreError(store, text)


def unreachable(store: str, error: BaseException, seconds: float) -> StoreError:
    """Our error for a server that could not be connected to. Nothing was asked of it."""
    text = str(error)
    for pattern, kind, meaning in _ANSWERS:
        if re.search(pattern, text) or (
            pattern == "LOADING" and isinstance(error, foreign.BusyLoadingError)
        ):
            return kind(store, meaning)
    if isinstance(error, foreign.AuthenticationError | foreign.NoPermissionError) or re.search(
        r"NOAUTH|WRONGPASS|invalid username-password|Authentication required", text
    ):
        return StoreUnavailable(store, f"it does not let us in: {text}")
    if is_timeout(error):
        return StoreUnavailable(store, f"it did not answer within {seconds:g} s")
    return StoreUnavailable(store, f"it cannot be reached: {text or type(error).__name__}")
