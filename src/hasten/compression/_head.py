"""The status and headers of a response, before and after compression.

The application writes the headers for the uncompressed body. After compression, its length,
digests, entity tag and byte ranges are different ones (RFC 9110, sections 8 and 14).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, Literal

from hasten._asgi import Headers
from hasten.compression._negotiation import Coding

ETagPolicy = Literal["weaken", "suffix", "drop", "keep"]
"""What happens to the strong ETag of a response when it is compressed."""

# Headers that are wrong for the compressed bytes. RFC 9110, 14.3; RFC 9530, sections 2 and 3.
_REPLACED: Final = frozenset(
    {
        b"accept-ranges", b"content-digest", b"content-length", b"content-md5", b"digest", b"etag",
        b"repr-digest", b"vary",
    }
)  # fmt: skip

# Responses without a body, or with a part of one. RFC 9110, sections 15.2 to 15.5.17.
_UNTOUCHED_STATUSES: Final = frozenset({101, 204, 205, 206, 416})

# Headers that compression changes, as a signature names them. RFC 9421, section 2.
_SIGNED: Final = (
    b'"content-digest"', b'"content-encoding"', b'"content-length"', b'"repr-digest"', b'"etag"',
    b'"vary"', b'"accept-ranges"', b'"digest"', b'"content-md5"',
)  # fmt: skip


SkipReason = Literal[
    "status",  # the response has no body (such as 204), or a part of one (206)
    "already_encoded",  # the application has set Content-Encoding
    "opted_out",  # by @no_compression, Content-Encoding: identity or filter=
    "no_transform",  # Cache-Control: no-transform in the request or the response
    "signed",  # an HTTP message signature covers headers that compression changes
    "media_type",  # not in the option media_types
    "head_request",  # a response to HEAD has no body
    "not_modified",  # the status is 304
    "too_small",  # below minimum_size
    "not_accepted",  # the client accepts none of the offered encodings
    "cross_site",  # another site made the request with the user's credentials: see BreachGuard
    "not_smaller",  # the compressed body is not smaller
    "wrong_length",  # the length of the body differs from its Content-Length
    "busy",  # too many bodies wait for a thread, or max_streams are open
    "sent_by_server",  # a zerocopysend message, or a pathsend of an unreadable file
    "unknown_message",  # the application sent an ASGI message of unknown type
    "unfinished",  # the application returned before the end of the body
]
"""Why a response was not compressed."""


class ResponseHead:
    """The status and headers of one response, and the headers of its compressed form.

    All methods return new lists or the original one, and never change a list in place.
    """

    __slots__ = ("found", "headers", "status")

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers: Headers = headers if type(headers) is list else list(headers)
        # Values by lower-case name. Lines with equal names are joined: RFC 9110, section 5.3.
        self.found: dict[bytes, bytes] = {}
        found = self.found
        for name, value in self.headers:
            key = name.lower()
            found[key] = found[key] + b", " + value if key in found else value

    @property
    def content_length(self) -> int | None:
        value = self.found.get(b"content-length")
        # A number of 20 digits is no real length, and very long ones are slow to parse.
        return int(value) if value is not None and value.isdigit() and len(value) < 20 else None

    def varies_at_most_by(self, names: Collection[bytes]) -> bool:
        """Return whether all headers in Vary are among names, which are in lower case."""
        vary = self.found.get(b"vary", b"").lower()
        return {name.strip() for name in vary.split(b",")} <= {b"", *names}

    def find_skip_reason(self, method: str) -> SkipReason | None:
        """Return the reason not to compress the response, None if its headers allow it.

        method is that of the request. The media type is not checked here.
        """
        status = self.status
        found = self.found
        if status < 200 or status in _UNTOUCHED_STATUSES or b"content-range" in found:
            return "status"
        if method == "CONNECT" and status < 300:
            return "status"
        if b"content-encoding" in found:
            return "opted_out" if self.has_identity_encoding else "already_encoded"
        if b"cache-control" in found and forbids_transform(found[b"cache-control"]):
            return "no_transform"
        if b"signature-input" in found and _covers_changed_headers(found[b"signature-input"]):
            return "signed"
        return None

    @property
    def has_identity_encoding(self) -> bool:
        # RFC 9110, section 8.4, does not allow "identity" in Content-Encoding. So an application
        # that sets it can only want to opt out of compression.
        return self.found.get(b"content-encoding", b"gzip").strip().lower() in {b"", b"identity"}

    def make_headers_without_encoding(self) -> Headers:
        return [line for line in self.headers if line[0].lower() != b"content-encoding"]

    def make_headers_with_vary(self, by: bytes = b"Accept-Encoding") -> Headers:
        """Return the headers with some names added to Vary, if they are not in it already.

        by is a comma-separated list of request headers. RFC 9110, section 12.5.5.
        """
        vary = self.found.get(b"vary")
        if vary is None:
            return [*self.headers, (b"vary", by)]
        merged = _merge_vary(vary, by)
        if merged == vary:
            return self.headers
        return [*(line for line in self.headers if line[0].lower() != b"vary"), (b"vary", merged)]

    def make_compressed_headers(
        self,
        coding: str,
        etag: ETagPolicy,
        length: int | None = None,
        vary: bytes = b"Accept-Encoding",
    ) -> Headers:
        """Return the headers of the compressed response.

        etag says what happens to a strong ETag. length is that of the compressed body, None if
        unknown. vary is the value to add to Vary.
        """
        headers = self.make_compressed_headers_for_head_request(coding, etag, vary)
        headers.append((b"content-encoding", coding.encode()))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        return headers

    def make_compressed_headers_for_head_request(
        self, coding: str, etag: ETagPolicy, vary: bytes = b"Accept-Encoding"
    ) -> Headers:
        """Return the headers of the compressed response that do not depend on its body.

        A response to HEAD has only these. Content-Encoding and Content-Length are not among them,
        because without the body nobody knows whether compression would make it smaller. The list
        is a new one.
        """
        found = self.found
        headers = [line for line in self.headers if line[0].lower() not in _REPLACED]
        headers.append((b"vary", _merge_vary(found[b"vary"], vary) if b"vary" in found else vary))
        if b"etag" in found and etag != "drop":
            headers.append((b"etag", make_compressed_etag(found[b"etag"], etag, coding)))
        return headers

    def make_not_modified_headers(self, if_none_match: bytes | None, etag: ETagPolicy) -> Headers:
        """Return the headers of a 304 response, with the ETag of the compressed variant.

        A client that sends the ETag of a compressed variant in If-None-Match must get it back,
        because the 200 response would have it, too. RFC 9110, section 15.4.5.
        """
        tag = self.found.get(b"etag")
        if if_none_match is None or tag is None or tag.startswith(b"W/"):
            return self.headers
        held = _TAG.findall(if_none_match)
        match etag:
            case "weaken":
                variants = [b"W/" + tag]
            case "suffix":
                variants = [make_compressed_etag(tag, etag, coding) for coding in (*Coding, "dcz")]
            case _:
                return self.headers
        named = next((variant for variant in variants if variant in held), None)
        if named is None or tag in held:
            return self.headers
        return [(n, named if n.lower() == b"etag" else value) for n, value in self.headers]


def forbids_transform(cache_control: bytes) -> bool:
    """Return whether a Cache-Control value contains no-transform.

    RFC 9111, sections 5.2.1.6 and 5.2.2.6.
    """
    return b"no-transform" in cache_control.lower() and any(
        directive.strip().lower() == b"no-transform" for directive in cache_control.split(b",")
    )


def allows_shared_caching(cache_control: bytes) -> bool:
    """Return whether a Cache-Control value lets shared caches, such as a CDN, store the response.

    It must contain public or s-maxage, and neither private nor no-store. RFC 9111, section 5.2.2.
    """
    directives = {part.partition(b"=")[0].strip().lower() for part in cache_control.split(b",")}
    return bool(directives & {b"public", b"s-maxage"}) and not directives & {
        b"private",
        b"no-store",
    }


def make_compressed_etag(tag: bytes, policy: ETagPolicy, coding: str) -> bytes:
    """Return the ETag of a compressed response, derived from that of the uncompressed one.

    A weak or malformed tag is returned unchanged. RFC 9110, section 8.8.1.
    """
    if not _TAG.fullmatch(tag) or tag.startswith(b"W/"):
        return tag
    match policy:
        case "weaken":
            return b"W/" + tag
        case "suffix":
            return tag[:-1] + b"--" + coding.encode() + b'"'
        case _:
            return tag


def strip_etag_suffixes(tags: bytes) -> bytes:
    """Return If-None-Match or If-Match with original ETags: ``"abc--gzip"`` becomes ``"abc"``.

    It undoes the ETag policy "suffix".
    """
    return _SUFFIX.sub(b'"', tags)


# entity-tag: RFC 9110, section 8.8.3. It may contain commas.
_TAG: Final = re.compile(rb'(?:W/)?"[^"]*"')
_SUFFIX: Final = re.compile(rb'--(?:%s|dcz)"' % b"|".join(coding.encode() for coding in Coding))


def _covers_changed_headers(signature_input: bytes) -> bool:
    """Return whether a Signature-Input value names a header that compression changes."""
    covered = signature_input.lower()
    return any(component in covered for component in _SIGNED)


def _merge_vary(vary: bytes, names: bytes) -> bytes:
    """Append header names to a Vary value, except those that it contains already.

    names is a comma-separated list. A value with ``*`` is returned unchanged.
    """
    present = {name.strip().lower() for name in vary.split(b",")} - {b""}
    if b"*" in present:
        return vary
    wanted = [name.strip() for name in names.split(b",")]
    missing = [name for name in wanted if name.lower() not in present]
    if not missing:
        return vary
    return b", ".join([vary, *missing] if present else missing)
