"""Caches of what texts from outside mean, bounded in bytes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

LONGEST: Final = 1024
"""Longer texts are not remembered: with 1,024 entries a cache holds some megabytes at most."""


def remembered(entries: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Remember what a function returns for the last so many short texts. Errors are not."""

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        remember = functools.lru_cache(entries)(function)

        @functools.wraps(function)
        def call(text: str) -> T:
            return remember(text) if len(text) <= LONGEST else function(text)

        return call

    return decorate
