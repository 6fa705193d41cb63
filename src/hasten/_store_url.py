"""Parse the URLs of stores: SQLite files, memory, and Redis or Valkey servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

from hasten.errors import InvalidOption

DEFAULT_TIMEOUT: Final = 5.0
"""How long an operation in a store may take, in seconds, if neither URL nor option sets it."""

FORMS: Final = (
    "memory://, sqlite:///file.db (four slashes for an absolute path) or redis://host:6379/0"
)
REDIS_FORMS: Final = (
    "redis://[user:password@]host[:6379][/db], rediss://… with TLS, unix:///path/of/socket[?db=0], "
    "redis+sentinel://host[:26379],…/service[/db] or redis+cluster://host[:6379],…"
)


class ServerKind(Enum):
    """How the nodes in a URL lead to the server that has the data.

    SINGLE: the only node is the server. SENTINEL: the nodes are Sentinels, which report the current
    master. CLUSTER: the nodes belong to a Redis Cluster, and report its other nodes.
    """

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


# By scheme: how the server is found, and whether connections use TLS.
_REDIS_SCHEMES: Final = {
    "redis": (ServerKind.SINGLE, False),
    "rediss": (ServerKind.SINGLE, True),
    "unix": (ServerKind.SINGLE, False),
    "redis+sentinel": (ServerKind.SENTINEL, False),
    "rediss+sentinel": (ServerKind.SENTINEL, True),
    "redis+cluster": (ServerKind.CLUSTER, False),
    "rediss+cluster": (ServerKind.CLUSTER, True),
}
_PORTS: Final = {ServerKind.SINGLE: 6379, ServerKind.SENTINEL: 26379, ServerKind.CLUSTER: 6379}

_SECRETS: Final = frozenset({"password", "sentinel_password"})
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")  # as in `redis.from_url`
_REDIS_OPTIONS: Final = frozenset(
    {"db", "timeout", "wait", "connections", "prefix", "ssl_cert_reqs", "ssl_check_hostname"}
    | {"sentinel_username", "sentinel_password", *_TLS_FILES}
)
_FILE_OPTIONS: Final = frozenset({"timeout", "synchronous"})
_SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """The location of a SQLite database: a file, or the memory of this process."""

    path: Path | None
    """The file, or None for a database in memory."""
    synchronous: str = "FULL"
    """The value of PRAGMA synchronous: whether commits survive a power cut."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The location of a Redis or Valkey server, and how to connect to it.

    - shown: the URL without passwords, for messages and for comparisons of stores.
    - nodes: (host, port) of each node in the URL. Empty for a Unix socket, whose path is in path.
    - service: the name that the Sentinels have for the master.
    - tls: the options for TLS, or None for connections that are not encrypted.
    - timeout: how long a request may take, in seconds.
    - wait: how many more seconds a request is retried while the server is unavailable.
    - connections: how many connections for requests one event loop opens to one server at most.
    """

    shown: str
    kind: ServerKind
    nodes: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = None
    timeout: float = DEFAULT_TIMEOUT
    wait: float = 0.0
    connections: int = 8


Location: TypeAlias = SqliteFile | RedisAddress


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed store URL. timeout (seconds) and prefix are None if the URL does not set them."""

    location: Location
    timeout: float | None = None
    prefix: str | None = None


def parse_store_url(url: str) -> StoreUrl:
    """Parse the URL of a store.

    Raises `InvalidOption`, whose message does not contain the password. After "?", the URL can have
    these options:

    - SQLite and memory: timeout (seconds), synchronous ('full', 'normal', 'extra' or 'off')
    - servers: timeout, wait and connections as in `RedisAddress`, prefix, and db for a Unix socket
    - servers with TLS: ssl_ca_certs, ssl_certfile and ssl_keyfile (paths), ssl_cert_reqs
      ('required' or 'none'), ssl_check_hostname ('true' or 'false')
    - Sentinels with a user of their own: sentinel_username, sentinel_password
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in _REDIS_SCHEMES:
        return _parse_server(url, scheme, rest)
    if separator and scheme in {"memory", "sqlite"}:
        return _parse_file(url)
    raise _invalid_url(url, REDIS_FORMS if scheme.partition(":")[0] in _REDIS_SCHEMES else FORMS)


def without_password(url: str) -> str:
    """Return a URL without its passwords, for messages and logs. The URL may be malformed.

    Everything before the last "@" is treated as credentials, because a password may contain
    characters that should have been escaped. The user name is kept if it can be recognized.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url.rpartition("@")[2]
    credentials, at, place = rest.rpartition("@")
    user = credentials.partition(":")[0] if ":" in credentials else credentials
    if at and user and "?" not in credentials:
        place = f"{user}@{place}"
    location, mark, query = place.partition("?")
    kept = [pair for pair in query.split("&") if not _is_secret_option(pair)]
    location = f"{scheme}{separator}{location}"
    return location + mark + "&".join(kept) if any(kept) else location


def _is_secret_option(pair: str) -> bool:
    return unquote_plus(pair.partition("=")[0]).strip().lower() in _SECRETS


def _invalid_url(url: str, expected: str) -> InvalidOption:
    return InvalidOption("url", without_password(url), expected)


# Files ------------------------------------------------------------------------------------------


def _parse_file(url: str) -> StoreUrl:
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or parts.fragment or (parts.scheme == "memory" and path):
        raise _invalid_url(url, FORMS)
    given = _parse_options(url, parts.query, _FILE_OPTIONS)
    synchronous = given.get("synchronous", "full").upper()
    if synchronous not in _SYNCHRONOUS:
        raise _invalid_url(url, "a URL whose option synchronous is full, normal, extra or off")
    location = SqliteFile(Path(path).absolute() if path else None, synchronous)
    return StoreUrl(location, timeout=_parse_timeout(given))


def _parse_options(url: str, query: str, known: frozenset[str]) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    if given.keys() - known:
        raise _invalid_url(url, f"a URL with no options other than {', '.join(sorted(known))}")
    return given


def _parse_timeout(given: Mapping[str, str]) -> float | None:
    return _parse_number("timeout", given, at_least=0.001) if "timeout" in given else None


def _parse_number(option: str, given: Mapping[str, str], *, at_least: float) -> float:
    try:
        number = float(given[option])
    except ValueError:
        number = -1.0
    if not at_least <= number < 1e6:
        raise InvalidOption(
            option, given[option], f"a number of at least {at_least:g}, below 1,000,000"
        )
    return number


# Servers ----------------------------------------------------------------------------------------


def _parse_server(url: str, scheme: str, rest: str) -> StoreUrl:
    kind, is_encrypted = _REDIS_SCHEMES[scheme]
    location, _, query = rest.partition("?")
    if "@" in query:  # the "?" is probably part of the password
        raise _invalid_url(
            url, "a URL with '?' in a user or password written as %3F, '@' in an option as %40"
        )
    given = _parse_options(url, query, _REDIS_OPTIONS)
    credentials, at, place = location.rpartition("@")
    username, password = _parse_credentials(credentials) if at else (None, None)
    path: str | None = None
    nodes: tuple[tuple[str, int], ...] = ()
    parts: list[str] = []
    if scheme == "unix":
        path = unquote(place)
        if not path.startswith("/"):
            raise _invalid_url(url, "unix:///path/of/socket")
    else:
        hosts, *parts = place.split("/")
        nodes = tuple(_parse_node(url, node, _PORTS[kind]) for node in hosts.split(",") if hosts)
    service, db = _parse_service_and_database(url, kind, [part for part in parts if part], given)
    timeout = _parse_timeout(given)
    address = RedisAddress(
        shown=_normalize_without_password(url),
        kind=kind,
        nodes=nodes or (() if path else (("localhost", _PORTS[kind]),)),
        path=path,
        service=service,
        db=db,
        username=username,
        password=password,
        sentinel_username=given.get("sentinel_username"),
        sentinel_password=given.get("sentinel_password"),
        tls=_parse_tls(given) if is_encrypted else None,
        timeout=DEFAULT_TIMEOUT if timeout is None else timeout,
        wait=_parse_number("wait", given, at_least=0) if "wait" in given else 0.0,
        connections=int(_parse_number("connections", given, at_least=2))
        if "connections" in given
        else 8,
    )
    return StoreUrl(address, timeout, given.get("prefix"))


def _normalize_without_password(url: str) -> str:
    """Return the URL without passwords, without "/" at its end, and with sorted options.

    So equivalent URLs are equal.
    """
    location, _, query = without_password(url).partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return location.rstrip("/") + (
        "?" + urlencode(pairs, quote_via=quote, safe="{}:/") if pairs else ""
    )


def _parse_credentials(text: str) -> tuple[str | None, str | None]:
    user, colon, password = text.partition(":")
    return unquote(user) or None, unquote(password) if colon else None


def _parse_node(url: str, node: str, default_port: int) -> tuple[str, int]:
    host, colon, port = node.rpartition(":")
    if not colon or node.endswith("]"):  # an IPv6 address without a port
        host, port = node, str(default_port)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise _invalid_url(url, REDIS_FORMS)
    return unquote(host.strip("[]")), int(port)


def _parse_service_and_database(
    url: str, kind: ServerKind, parts: list[str], given: Mapping[str, str]
) -> tuple[str, int]:
    """Return the name of the Sentinel service, "" without Sentinels, and the database number.

    parts are the segments of the path of the URL.
    """
    service = ""
    if kind is ServerKind.SENTINEL:
        if not parts:
            raise _invalid_url(url, "redis+sentinel://host,…/service, with the service name")
        service = unquote(parts.pop(0))
    db = parts.pop(0) if parts else given.get("db", "0")
    if parts or not db.isdecimal():
        raise _invalid_url(url, REDIS_FORMS)
    if kind is ServerKind.CLUSTER and int(db):
        raise _invalid_url(url, "a URL with database 0: a cluster has no other database")
    return service, int(db)


def _parse_tls(given: Mapping[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {}
    for name in _TLS_FILES:
        if name in given:
            if not Path(given[name]).is_file():
                raise InvalidOption(name, given[name], "the path of an existing file")
            tls[name] = given[name]
    if "ssl_cert_reqs" in given:
        if given["ssl_cert_reqs"] not in {"required", "none"}:
            raise InvalidOption("ssl_cert_reqs", given["ssl_cert_reqs"], "'required' or 'none'")
        tls["ssl_cert_reqs"] = given["ssl_cert_reqs"]
    check = given.get("ssl_check_hostname", "true").lower()
    if check not in {"true", "false"}:
        raise InvalidOption("ssl_check_hostname", check, "'true' or 'false'")
    tls["ssl_check_hostname"] = check == "true" and tls.get("ssl_cert_reqs") != "none"
    return tls
