"""A defence against BREACH, an attack that guesses secrets by the length of compressed responses.

If a response contains a secret and also text from the request, it compresses better when the text
equals a part of the secret. To find the secret, the attacker's site makes the victim's browser send
many requests with the victim's cookies (RFC 9110, section 17.6). So responses to such cross-site
requests are not compressed.
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
class BreachGuard:
    """The defence against BREACH: some responses are not compressed, to keep their content secret.

    These are the responses to requests that a page of another site makes with the user's
    credentials: cookies, or a password that the browser sends by itself. If the user follows a
    link, the response is still compressed, because no script can read its length.

    - trusted_origins: origins of your other sites, such as ``https://app.example.org``. Responses
      to their pages are compressed.
    - same_site: apply the rule also to pages of other hosts of the same site, such as subdomains.

    Raises `InvalidOption`.
    """

    trusted_origins: Collection[str] = ()
    same_site: bool = False
    _trusted: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        expected = "a list of origins such as 'https://app.example.org'"
        origins = check_texts("trusted_origins", self.trusted_origins, expected)
        object.__setattr__(self, "_trusted", frozenset(map(_parse_trusted_origin, origins)))
        check_flag("same_site", self.same_site)

    def _forbids_compression(self, request_headers: Mapping[bytes, bytes]) -> bool:
        """Return whether the response to a request must not be compressed.

        This is so if a page of another site made the request with the user's credentials. The names
        of the headers are in lower case. Browsers send the relation of the two sites in
        Sec-Fetch-Site. For browsers from before 2023, the host in Origin or Referer is compared
        with the Host header.
        """
        if not _has_ambient_credentials(request_headers):
            return False
        site = request_headers.get(b"sec-fetch-site")
        if site in _OWN:
            return False
        if site is None:
            return self._has_foreign_origin(request_headers)
        if site not in (_FOREIGN_OR_SAME_SITE if self.same_site else _FOREIGN):
            return False
        return not (
            _is_navigation(request_headers)
            or _find_origin_and_host_of_requesting_page(request_headers)[0] in self._trusted
        )

    def _has_foreign_origin(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether Origin or Referer names another host, which is not trusted."""
        if b"origin" not in headers and b"referer" not in headers:
            return False
        origin, host = _find_origin_and_host_of_requesting_page(headers)
        return origin not in self._trusted and host != _find_request_host(headers)


def _is_navigation(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the user opened the page, for instance by a click on a link."""
    return (
        headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and headers.get(b"sec-fetch-user") == b"?1"
    )


def _has_ambient_credentials(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request has credentials that browsers add by themselves.

    With requests from any page, they send cookies and a password that they have prompted for. A
    bearer token is different: only the page that has it can add it.
    """
    if b"cookie" in headers:
        return True
    scheme = headers.get(b"authorization", b"").partition(b" ")[0].lower()
    return scheme in {b"basic", b"digest", b"negotiate", b"ntlm"}


def _parse_trusted_origin(origin: str) -> bytes:
    """Return an entry of trusted_origins as browsers send it, or raise `InvalidOption`."""
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
    raise InvalidOption("trusted_origins", origin, "an origin such as 'https://app.example.org'")


def _serialize_origin(parts: SplitResult) -> str:
    """Return the origin of a URL as browsers send it: scheme, host, and port if not the default."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in {None, usual} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}".lower()


def _find_origin_and_host_of_requesting_page(headers: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the origin and host name of the page that made a request, both empty if unknown.

    They are taken from Origin or, without it, from Referer.
    """
    url = headers.get(b"origin") or headers.get(b"referer", b"")
    try:
        parts = urlsplit(url.decode("latin-1"))
        if not parts.hostname:
            return b"", b""
        return _serialize_origin(parts).encode("latin-1"), parts.hostname.encode("latin-1")
    except ValueError:
        return b"", b""


def _find_request_host(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the host name in the Host header, without the port."""
    try:
        host = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname
        return host.encode("latin-1") if host else None
    except ValueError:
        return None
