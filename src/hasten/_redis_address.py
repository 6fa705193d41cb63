"""URLs of servers: what they may say, and what is shown of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from hasten._urls import without_password
from hasten.errors import InvalidOption


class Kind(Enum):
    """How a server is found."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


# Each scheme: how the server is found, and whether the connection is encrypted.
SCHEMES: Final = {
    "redis": (Kind.SINGLE, False),
    "rediss": (Kind.SINGLE, True),
    "unix": (Kind.SINGLE, False),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
}

FORMS: Final = (
    "redis://[user:password@]host[:6379][/db], rediss://… with TLS, unix:///path/of/socket[?db=0], "
    "redis+sentinel://host[:26379],…/service[/db] or redis+cluster://host[:6379],…"
)

# The names that `redis.from_url` has for them, too.
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_DRIVER_OPTIONS: Final = frozenset(
    {"db", "timeout", "wait", "connections", "ssl_cert_reqs", "ssl_check_hostname"}
    | {"sentinel_username", "sentinel_password", *_TLS_FILES}
)
_PORTS: Final = {Kind.SINGLE: 6379, Kind.SENTINEL: 26379, Kind.CLUSTER: 6379}


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL.

    nodes are (host, port), none for a Unix socket, whose path is in path. timeout is how long a
    request may take, in seconds; wait is how much longer it keeps trying to reach a server that is
    not there; connections is the most that one event loop opens to one server for requests.
    """

    shown: str
    kind: Kind
    nodes: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = None
    timeout: float = 5.0
    wait: float = 0.0
    connections: int = 8
    options: Mapping[str, str] = field(default_factory=dict)


def parse_url(url: str, *, known: Collection[str] = (), timeout: float = 5.0) -> Address:
    """Read a URL, which `FORMS` shows. Raises `InvalidOption`, with no password in it.

    Options after "?": timeout (seconds, 5), wait (seconds, 0), connections (8) as in `Address`; for
    TLS ssl_ca_certs, ssl_certfile, ssl_keyfile (paths), ssl_cert_reqs (required or none) and
    ssl_check_hostname (true or false); for Sentinels of their own sentinel_username and
    sentinel_password. Those in known are the caller's, and go to `options`; timeout is the caller's
    where the URL has none.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise InvalidOption("url", without_password(url), FORMS)
    kind, encrypted = SCHEMES[scheme]
    location, _, query = rest.partition("?")
    if "@" in query:  # or is it the end of a password with a "?"?
        expected = "a URL with '?' in a user or password as %3F, and '@' in an option as %40"
        raise InvalidOption("url", without_password(url), expected)
    given = _read_query(url, query, known)
    credentials, at, place = location.rpartition("@")
    username, password = _read_credentials(credentials) if at else (None, None)
    if scheme == "unix":
        hosts, path, parts = "", unquote(place), []
        if not path.startswith("/"):
            raise InvalidOption("url", without_password(url), "unix:///path/of/socket")
    else:
        hosts, path, parts = place.split("/")[0], None, place.split("/")[1:]
    service, db = _read_place(url, kind, [part for part in parts if part], given)
    return Address(
        shown=_shown(url),
        kind=kind,
        nodes=tuple(_read_node(url, node, _PORTS[kind]) for node in hosts.split(",") if hosts)
        or (() if path is not None else (("localhost", _PORTS[kind]),)),
        path=path,
        service=service,
        db=db,
        username=username,
        password=password,
        sentinel_username=given.get("sentinel_username"),
        sentinel_password=given.get("sentinel_password"),
        tls=_read_tls(given) if encrypted else None,
        timeout=_number("timeout", given, timeout, at_least=0.001),
        wait=_number("wait", given, 0.0, at_least=0.0),
        connections=int(_number("connections", given, 8, at_least=2)),
        options={name: value for name, value in given.items() if name in known},
    )


def _shown(url: str) -> str:
    """The same for URLs that mean the same: it also tells whether two queues have one store."""
    location, _, query = without_password(url).partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return location.rstrip("/") + (
        "?" + urlencode(pairs, quote_via=quote, safe="{}:/") if pairs else ""
    )


def _read_query(url: str, query: str, known: Collection[str]) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for option in given:
        if option not in _DRIVER_OPTIONS and option not in known:
            allowed = ", ".join(sorted({*_DRIVER_OPTIONS, *known}))
            raise InvalidOption(
                "url", without_password(url), f"a URL with no options other than {allowed}"
            )
    return given


def _read_credentials(text: str) -> tuple[str | None, str | None]:
    user, colon, password = text.partition(":")
    return unquote(user) or None, unquote(password) if colon else None


def _read_node(url: str, node: str, default_port: int) -> tuple[str, int]:
    host, colon, port = node.rpartition(":")
    if not colon or node.endswith("]"):  # an IPv6 address without a port
        host, port = node, str(default_port)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidOption("url", without_password(url), FORMS)
    return unquote(host.strip("[]")), int(port)


def _read_place(
    url: str, kind: Kind, parts: list[str], given: Mapping[str, str]
) -> tuple[str, int]:
    """The Sentinels' service and the number of the database."""
    service = ""
    if kind is Kind.SENTINEL:
        if not parts:
            expected = "redis+sentinel://host,…/service, with the name of the service"
            raise InvalidOption("url", without_password(url), expected)
        service = unquote(parts.pop(0))
    db = parts.pop(0) if parts else given.get("db", "0")
    if parts or not db.isdecimal():
        raise InvalidOption("url", without_password(url), FORMS)
    if kind is Kind.CLUSTER and int(db):
        raise InvalidOption(
            "url", without_password(url), "a URL of database 0: a cluster has no other"
        )
    return service, int(db)


def _read_tls(given: Mapping[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {}
    for name in _TLS_FILES:
        if name in given:
            if not Path(given[name]).is_file():
                raise InvalidOption(name, given[name], "the path of a file that exists")
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


def _number(option: str, given: Mapping[str, str], default: float, *, at_least: float) -> float:
    if option not in given:
        return default
    try:
        number = float(given[option])
    except ValueError:
        number = -1.0
    if not at_least <= number < 1e6:
        raise InvalidOption(option, given[option], f"a number of at least {at_least:g}")
    return number
