"""What a behaviour is shown on: a host, a middleware and a coding.

Behaviours are test functions that take a `Site`. They are collected here as well, to be run on
middlewares that are wrong: see test_wrong.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.http.client import App, Client
from tests.http.hosts import (
    HOSTS,
    Answer,
    Can,
    Echo,
    Host,
    Installed,
    MiddlewareFactory,
    no_middleware,
)


@dataclass(frozen=True)
class Site:
    host: Host
    middleware: MiddlewareFactory
    coding: str = "gzip"

    def serve(self, answer: Answer, **options: Any) -> Client:
        return Client(self.host.serve(answer, Installed(self.middleware, options)))

    def bare(self, answer: Answer) -> Client:
        """The same response without the middleware."""
        return Client(self.host.serve(answer, Installed(no_middleware)))

    def echo(self, echo: Echo, **options: Any) -> Client:
        return Client(self.host.echo(echo, Installed(self.middleware, options)))

    def wrap(self, app: App, **options: Any) -> App:
        """Wrap the middleware around an application, for tests that need Can.RAW."""
        return Installed(self.middleware, options)(app)

    def client(self, app: App, **options: Any) -> Client:
        return Client(self.wrap(app, **options))


Check: TypeAlias = Callable[[Site], Awaitable[None]]


@dataclass(frozen=True)
class Behaviour:
    check: Check
    subject: str
    needs: Can
    codings: tuple[str, ...]
    once: bool = False

    @property
    def name(self) -> str:
        return self.check.__name__.removeprefix("test_")

    @property
    def hosts(self) -> list[Host]:
        able = [host for host in HOSTS if self.needs in host.can]
        return able[:1] if self.once else able

    def cases(self) -> Iterator[tuple[Host, str]]:
        """All codings on the first host, and one on each other host."""
        first, *others = self.hosts
        for coding in self.codings:
            yield first, coding
        for number, host in enumerate(others):
            yield host, self.codings[number % len(self.codings)]


BEHAVIOURS: dict[Callable[..., Any], Behaviour] = {}


def behaviour(
    *,
    needs: Can = Can.NOTHING,
    codings: tuple[str, ...] = ("gzip",),
    subject: str = "CompressionMiddleware",
    once: bool = False,
) -> Callable[[Check], Check]:
    """A test of a middleware of hasten.compression, on every host that has what it needs.

    If `once`, then only on the first of them: what is tested does not depend on the host.
    """

    def register(check: Check) -> Check:
        BEHAVIOURS[check] = Behaviour(check, subject, needs, codings, once)
        return check

    return register
