"""Decide which limits apply to the path of a request.

The path of a limit includes all paths below it: "/api/" applies to "/api" and "/api/posts", not to
"/apix". Like in a router, paths are compared as the server has decoded them, and repeated slashes
count as one. If a router is stricter than this comparison, a limit also counts requests that find
no route. If the comparison were stricter, requests could bypass the limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlparse

_SLASHES: Final = re.compile("//+")


class LimitPaths:
    """The paths of several limits, to find the limits that apply to the path of a request.

    patterns has the paths of each limit, None if the limit applies to all paths.
    """

    def __init__(self, patterns: Sequence[Sequence[str] | None]) -> None:
        self._prefixes = [
            None if paths is None else tuple({normalize_path(path) for path in paths})
            for paths in patterns
        ]

    def find_indexes_of_matching_limits(self, *paths: str) -> tuple[int, ...]:
        """Return the indexes of the limits that apply to any of these paths, in order."""
        found = [normalize_path(path) for path in paths]
        return tuple(
            i
            for i, prefixes in enumerate(self._prefixes)
            if prefixes is None
            or any(_is_at_or_below(path, prefix) for path in found for prefix in prefixes)
        )


def strip_root_path(path: str, root_path: str) -> str:
    """Normalize both paths, and return the path without the root path.

    If the path does not begin with the root path, the normalized path is returned.
    """
    path, root_path = normalize_path(path), normalize_path(root_path)
    return path[len(root_path) :] if _is_at_or_below(path, root_path) else path


def normalize_path(path: str) -> str:
    """Return the path with single slashes, one at its start and none at its end; "" for the root.

    A line break at the end is removed, too: Starlette's router matches by a regular expression with
    "$", which accepts "/login\\n" as "/login".
    """
    if not path.startswith("/"):
        path = _extract_url_path(path)
    return _SLASHES.sub("/", path).rstrip("/\n")


def _extract_url_path(target: str) -> str:
    """Return the path of an absolute URL, which some servers pass as the path and Quart accepts."""
    try:
        return "/" + urlparse(target).path
    except ValueError:
        return "/" + target


def _is_at_or_below(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")
