"""The interface of a contestant: a rate limiting library, for functions or for applications."""

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
"""Counts one hit of a key. An async function if the library has async functions."""

LimitPaths: TypeAlias = Mapping[str, Sequence[Rate]]
"""The rates of each path. They apply to each client."""


class Contestant(contestants.Contestant):
    """A rate limiting library.

    algorithms are those that can be measured without an application; the first one is compared with
    other contestants. There are none if the library only works in an application.
    """

    algorithms: ClassVar[tuple[str, ...]] = ()
    has_application: ClassVar[bool] = True
    uses_redis: ClassVar[bool] = True

    @classmethod
    def command(cls, workload: str) -> list[str]:
        """Return the command that runs a workload (a module of `workloads`) in a process.

        A JSON object of arguments is appended to the command. It prints its result as JSON.
        """
        raise NotImplementedError


class PythonContestant(Contestant):
    """A library in Python. Only the methods import it, in the process of a workload."""

    @classmethod
    def command(cls, workload: str) -> list[str]:
        return [cls.python(), "-m", "benchmarks.ratelimit.run_workload", cls.__module__, workload]

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        """Return a function that counts a hit under several rates, in memory or on Redis (url)."""
        raise NotImplementedError

    @staticmethod
    def is_allowed(result: Any) -> bool:
        """Return whether the result of a hit allows the request."""
        return bool(result)

    @classmethod
    def application(cls, paths: LimitPaths, *, url: str | None = None) -> Application:
        """Return an application with limits for each client address."""
        raise NotImplementedError

    @classmethod
    def unlimited(cls, paths: LimitPaths) -> Application:
        """Return the same application without limits."""
        raise NotImplementedError

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application | None:
        """Return app with a limit that only counts failed logins, or None if that is impossible."""
        return None


class NodeContestant(NodePackages, Contestant):
    """A library in Node. Its workloads are in express.mjs."""

    @classmethod
    def command(cls, workload: str) -> list[str]:
        return cls.node("--expose-gc", str(cls.folder() / "express.mjs"), workload)


CONTESTANTS: Final[Contestants[Contestant]] = Contestants(
    "benchmarks.ratelimit.contestants", OURS, OUR_STORE
)


def is_python_peer(name: str) -> bool:
    return issubclass(CONTESTANTS.find(name), PythonContestant) and name not in (OURS, OUR_STORE)
