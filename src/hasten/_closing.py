"""A base class for objects that can be closed by `async with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class AsyncClosable(ABC):
    """A base class for context managers that call `aclose` at the end of `async with`."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections and files of the object. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()
