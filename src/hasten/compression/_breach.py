"""Against BREACH: the length of what is compressed tells about secrets beside an attacker's input.

The attack (RFC 9110, section 17.6) needs a victim's browser to make requests with the victim's
cookies from the attacker's site. The guard takes that away: such answers are not coded. Padding
only makes the measuring dearer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hasten._checks import check_flag, check_texts
from hasten._sizes import Size, to_bytes
from hasten.errors import InvalidOption

_OWN: Final = frozenset({b"same-origin", b"none"})
_FOREIGN: Final = frozenset({b"cross-site"})
_FOREIGN_OR_SAME_SITE: Final = frozenset({b"cross-site", b"same-site"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Do not compress responses to requests of other sites with the user's cookies or password.

    - trusted_origins: other sites of yours whose pages get compressed responses, such as
      ``https://app.example.org``.
    - same_site: treat other hosts of the same site as foreign, too.

    Navigations by the user are exempt: no script can read their length. Raises `InvalidOption`.
    """

    trusted_origins: Collection[str] = ()
    same_site: bool = False
    _trusted: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        expected = "a list of origins such as 'https://app.example.org'"
        origins = check_texts("trusted_origins", self.trusted_origins, expected)
        object.__setattr__(self, "_trusted", frozenset(map(_trusted_origin, origins)))
        check_flag("same_site", self.same_site)

    def _is_foreign(self, headers: Mapping[bytes, bytes]) -> bool:
        """Was this request made by another site in the user's name?

        headers have names in lower case. Browsers tell by Sec-Fetch-Site; those older than 2023 by
        Origin or Referer, whose host is then compared with that of the request.
        """
        if not _has_ambient_credentials(headers):
            return False
        site = headers.get(b"sec-fetch-site")
        if site in _OWN:
            return False
        if site is None:
            return self._comes_from_elsewhere(headers)
        if site not in (_FOREIGN_OR_SAME_SITE if self.same_site else _FOREIGN):
            return False
        return not (_is_navigation(headers) or _source(headers)[0] in self._trusted)

    def _comes_from_elsewhere(self, headers: Mapping[bytes, bytes]) -> bool:
        if b"origin" not in headers and b"referer" not in headers:
            return False
        origin, host = _source(headers)
        return origin not in self._trusted and host != _host(headers)


@dataclass(frozen=True, slots=True)
class Padding:
    """Add 1 to max_size bytes to bodies that are compressed with gzip or zstd.

    How many depends on the content alone: repeating a request teaches nothing, varying it does.
    Streams and bodies above 4 MB are not padded. max_size is at most 1 kB.
    """

    max_size: Size = 32
    _max_bytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        max_bytes = to_bytes("max_size", self.max_size, at_least=1)
        if max_bytes > 1024:
            raise InvalidOption("max_size", self.max_size, "from 1 to 1024 bytes")
        object.__setattr__(self, "_max_bytes", max_bytes)

    def _pad(self, coding: str, coded: bytes, body: bytes) -> bytes:
        """Lengthen a coded body. Brotli has no room for padding and is left as it is."""
        # A hash that nobody can steer: with a checksum, two guesses could be given equal padding.
        digest = blake2b(body, digest_size=4).digest()
        length = 1 + int.from_bytes(digest) % self._max_bytes
        match coding:
            case "gzip":
                return _pad_gzip(coded, length)
            case "zstd":
                return _pad_zstd(coded, length)
            case _:
                return coded


def _pad_gzip(coded: bytes, length: int) -> bytes:
    """Put so many bytes into the header of a gzip member, as a file name. RFC 1952, section 2.3."""
    has_name = 8
    flags = coded[3] | has_name
    return coded[:3] + bytes([flags]) + coded[4:10] + b"x" * (length - 1) + b"\0" + coded[10:]


def _pad_zstd(coded: bytes, length: int) -> bytes:
    """Append a skippable frame with so many bytes of content. RFC 8878, section 3.1.2.

    Before the content it would be as valid, and some versions of Chromium take it for the end.
    """
    return coded + b"\x50\x2a\x4d\x18" + length.to_bytes(4, "little") + bytes(length)


def _is_navigation(headers: Mapping[bytes, bytes]) -> bool:
    return (
        headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and headers.get(b"sec-fetch-user") == b"?1"
    )


def _has_ambient_credentials(headers: Mapping[bytes, bytes]) -> bool:
    """Did the browser add by itself what tells who the user is?

    Schemes of Authorization that it asks the user for, it sends from any page. A bearer token it
    does not: a page has to add that, and must be allowed to.
    """
    if b"cookie" in headers:
        return True
    scheme = headers.get(b"authorization", b"").partition(b" ")[0].lower()
    return scheme in {b"basic", b"digest", b"negotiate", b"ntlm"}


def _trusted_origin(origin: str) -> bytes:
    try:
        parts = urlsplit(origin) if "://" in origin[1:] else None
        if (
            parts
            and parts.hostname
            and not (parts.path or parts.query or parts.fragment or parts.username)
        ):
            return _origin(parts).encode()
    except ValueError:
        pass
    raise InvalidOption("trusted_origins", origin, "origins such as 'https://app.example.org'")


def _origin(parts: SplitResult) -> str:
    """Scheme, host and port as browsers send them: without the port that is usual."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in {None, usual} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}".lower()


def _source(headers: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """The origin and the host name of the page that asks, both empty if it does not say."""
    url = headers.get(b"origin") or headers.get(b"referer", b"")
    try:
        parts = urlsplit(url.decode("latin-1"))
        if not parts.hostname:
            return b"", b""
        return _origin(parts).encode("latin-1"), parts.hostname.encode("latin-1")
    except ValueError:
        return b"", b""


def _host(headers: Mapping[bytes, bytes]) -> bytes | None:
    try:
        host = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname
        return host.encode("latin-1") if host else None
    except ValueError:
        return None
