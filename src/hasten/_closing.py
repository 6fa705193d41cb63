"""`async with` for objects that have `aclose`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class AsyncClosable(ABC):
    """A base class whose objects close themselves at the end of `async with`."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Release what the object holds. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()
