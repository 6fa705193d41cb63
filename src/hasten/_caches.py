"""Caches of parsed texts from clients, bounded in bytes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

LONGEST: Final = 1024
"""Longer texts are not cached, so a cache of 1,024 entries has at most some megabytes."""


def remembered(entries: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Cache the results of a function for the most recent short texts. Errors are not cached."""

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        remember = functools.lru_cache(entries)(function)

        @functools.wraps(function)
        def call(text: str) -> T:
            return remember(text) if len(text) <= LONGEST else function(text)

        return call

    return decorate
