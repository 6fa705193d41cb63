"""Defence against BREACH: the compressed length reveals secrets that stand beside chosen input.

The attack (RFC 9110, section 17.6) needs the victim's browser to make requests from the attacker's
site with the victim's cookies. The guard prevents it: responses to such requests are not
compressed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hasten._checks import check_flag, check_texts
from hasten.errors import InvalidOption

_OWN: Final = frozenset({b"same-origin", b"none"})
_FOREIGN: Final = frozenset({b"cross-site"})
_FOREIGN_OR_SAME_SITE: Final = frozenset({b"cross-site", b"same-site"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Do not compress responses to requests that another site makes with the user's credentials.

    - trusted_origins: your other sites, whose pages get compressed responses, such as
      ``https://app.example.org``.
    - same_site: treat other hosts of the same site as foreign, too.

    Credentials are cookies and passwords that the browser sends by itself. Navigations by the user
    are exempt, because no script can read their length. Raises `InvalidOption`.
    """

    trusted_origins: Collection[str] = ()
    same_site: bool = False
    _trusted: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        expected = "a list of origins such as 'https://app.example.org'"
        origins = check_texts("trusted_origins", self.trusted_origins, expected)
        object.__setattr__(self, "_trusted", frozenset(map(_parse_trusted_origin, origins)))
        check_flag("same_site", self.same_site)

    def _forbids_compression(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether another site made this request with the user's credentials.

        headers have names in lower case. Browsers send Sec-Fetch-Site. For browsers from before
        2023, the host of Origin or Referer is compared with that of the request.
        """
        if not _has_ambient_credentials(headers):
            return False
        site = headers.get(b"sec-fetch-site")
        if site in _OWN:
            return False
        if site is None:
            return self._has_foreign_origin(headers)
        if site not in (_FOREIGN_OR_SAME_SITE if self.same_site else _FOREIGN):
            return False
        return not (_is_navigation(headers) or _requesting_page(headers)[0] in self._trusted)

    def _has_foreign_origin(self, headers: Mapping[bytes, bytes]) -> bool:
        if b"origin" not in headers and b"referer" not in headers:
            return False
        origin, host = _requesting_page(headers)
        return origin not in self._trusted and host != _request_host(headers)


def _is_navigation(headers: Mapping[bytes, bytes]) -> bool:
    return (
        headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and headers.get(b"sec-fetch-user") == b"?1"
    )


def _has_ambient_credentials(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the browser added credentials by itself.

    Browsers send cookies, and the password of an Authorization scheme that they prompt for, with
    requests from any page. A bearer token must be added by a page that is allowed to.
    """
    if b"cookie" in headers:
        return True
    scheme = headers.get(b"authorization", b"").partition(b" ")[0].lower()
    return scheme in {b"basic", b"digest", b"negotiate", b"ntlm"}


def _parse_trusted_origin(origin: str) -> bytes:
    try:
        parts = urlsplit(origin) if "://" in origin[1:] else None
        if (
            parts
            and parts.hostname
            and not (parts.path or parts.query or parts.fragment or parts.username)
        ):
            return _serialize_origin(parts).encode()
    except ValueError:
        pass
    raise InvalidOption("trusted_origins", origin, "origins such as 'https://app.example.org'")


def _serialize_origin(parts: SplitResult) -> str:
    """Return scheme, host and port as browsers send them: without the default port."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in {None, usual} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}".lower()


def _requesting_page(headers: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the origin and the host name of the requesting page, both empty if unknown."""
    url = headers.get(b"origin") or headers.get(b"referer", b"")
    try:
        parts = urlsplit(url.decode("latin-1"))
        if not parts.hostname:
            return b"", b""
        return _serialize_origin(parts).encode("latin-1"), parts.hostname.encode("latin-1")
    except ValueError:
        return b"", b""


def _request_host(headers: Mapping[bytes, bytes]) -> bytes | None:
    try:
        host = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname
        return host.encode("latin-1") if host else None
    except ValueError:
        return None
