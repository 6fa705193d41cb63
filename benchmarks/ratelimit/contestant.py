"""What a contestant is: a library that limits rates, by itself or around an application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from benchmarks import contestants
from benchmarks.asgi import Application
from benchmarks.contestants import Contestants, NodePackages

OURS: Final = "hasten"
OUR_STORE: Final = "hasten_store"


class Rate(NamedTuple):
    limit: int
    seconds: int


Hit: TypeAlias = Callable[[str], object | Awaitable[object]]
"""Counts one hit of a key. A function, or a coroutine function if the library has those."""

Paths: TypeAlias = Mapping[str, Sequence[Rate]]
"""The rates of each path, for each client."""


class Contestant(contestants.Contestant):
    """algorithms are those of the library used by itself, the one that is compared first; it has
    none if it can only be a part of an application."""

    algorithms: ClassVar[tuple[str, ...]] = ()
    has_application: ClassVar[bool] = True
    uses_redis: ClassVar[bool] = True

    @classmethod
    def command(cls, workload: str) -> list[str]:
        """Return what runs a workload (see `workloads`): a JSON object of arguments is appended to
        the command, and it prints JSON."""
        raise NotImplementedError


class PythonContestant(Contestant):
    """The methods import the library, in the process of a workload."""

    @classmethod
    def command(cls, workload: str) -> list[str]:
        return [cls.python(), "-m", "benchmarks.ratelimit.run_workload", cls.__module__, workload]

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        """Return a limiter by several rates at once, in memory or on the Redis at url."""
        raise NotImplementedError

    @staticmethod
    def is_allowed(result: Any) -> bool:
        """Return whether the result of a hit allows the request."""
        return bool(result)

    @classmethod
    def application(cls, paths: Paths, *, url: str | None = None) -> Application:
        """Return the application with limits, which count by the address of the client."""
        raise NotImplementedError

    @classmethod
    def unlimited(cls, paths: Paths) -> Application:
        """Return the same application without limits."""
        raise NotImplementedError

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application | None:
        """Return app with a limit that counts failed logins only; None if that is impossible."""
        return None


class NodeContestant(NodePackages, Contestant):
    """See express.mjs."""

    @classmethod
    def command(cls, workload: str) -> list[str]:
        return cls.node("--expose-gc", str(cls.folder() / "express.mjs"), workload)


CONTESTANTS: Final[Contestants[Contestant]] = Contestants(
    "benchmarks.ratelimit.contestants", OURS, OUR_STORE
)


def is_python_peer(name: str) -> bool:
    return issubclass(CONTESTANTS.find(name), PythonContestant) and name not in (OURS, OUR_STORE)
