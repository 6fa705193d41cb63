"""Which limits are for a path.

A path is one with all that lies below it: "/api/" is for "/api" and "/api/posts", not for "/apix".
What is compared is what the server has decoded (a router sees nothing else), with slashes that
repeat taken for one: where that is more than a router would take, a request is counted that finds
nothing; the other way round there would be a way around the limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlparse

_SLASHES: Final = re.compile("//+")


class Paths:
    """The paths of several limits, each None for all that there are."""

    def __init__(self, patterns: Sequence[Sequence[str] | None]) -> None:
        self._prefixes = [
            None if paths is None else tuple({plain(path) for path in paths}) for paths in patterns
        ]

    def match(self, *paths: str) -> tuple[int, ...]:
        """The places of the limits that are for any of these paths, in their order."""
        found = [plain(path) for path in paths]
        return tuple(
            place
            for place, prefixes in enumerate(self._prefixes)
            if prefixes is None
            or any(_is_below(path, prefix) for path in found for prefix in prefixes)
        )


def without_root(path: str, root_path: str) -> str:
    """The plain path without the root path, if it begins with it."""
    path, root_path = plain(path), plain(root_path)
    return path[len(root_path) :] if _is_below(path, root_path) else path


def plain(path: str) -> str:
    """The path with single slashes, one at its beginning and none at its end; "" for the root.

    Nor a line break: routers that match by a regular expression with "$" (Starlette's) take
    "/login\\n" for "/login".
    """
    if not path.startswith("/"):
        path = _of_absolute(path)
    return _SLASHES.sub("/", path).rstrip("/\n")


def _of_absolute(target: str) -> str:
    """The path of a whole URL, which servers may hand on, and Quart understands."""
    try:
        return "/" + urlparse(target).path
    except ValueError:
        return "/" + target


def _is_below(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")
