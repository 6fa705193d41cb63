"""A cache for functions that parse short texts, with a bounded use of memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

MAX_CACHED_CHARS: Final = 1024
"""Longer texts are not cached, so that 1,024 entries take at most a few megabytes."""


def cache_results_for_short_texts(
    max_entries: int,
) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Return a decorator that caches the results of a function of one string.

    The cache keeps the given number of most recently used entries. Strings of more than
    `MAX_CACHED_CHARS` characters are not cached, nor are calls that raise an exception.
    """

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        remember = functools.lru_cache(max_entries)(function)

        @functools.wraps(function)
        def call(text: str) -> T:
            return remember(text) if len(text) <= MAX_CACHED_CHARS else function(text)

        return call

    return decorate
