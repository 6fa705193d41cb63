"""The head of a response: what it says, and what it must say once the body is coded.

An answer that is coded is another representation than the one that the application described. Its
length, digests, validators and ranges are not the ones that were given (RFC 9110, sections 8 and
14).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, Literal

from hasten._asgi import Headers
from hasten.compression._negotiation import Coding

ETagPolicy = Literal["weaken", "suffix", "drop", "keep"]
"""What happens to a strong validator of a response that is compressed."""

# Of the coded bytes they would say something false: RFC 9110, 14.3; RFC 9530, sections 2 and 3.
_REPLACED: Final = frozenset(
    {
        b"accept-ranges", b"content-digest", b"content-length", b"content-md5", b"digest", b"etag",
        b"repr-digest", b"vary",
    }
)  # fmt: skip

# Responses without a body, or with a part of one. RFC 9110, sections 15.2 to 15.5.17.
_UNTOUCHED_STATUSES: Final = frozenset({101, 204, 205, 206, 416})

# What a signature may cover (RFC 9421, section 2) and coding changes.
_SIGNED: Final = (
    b'"content-digest"', b'"content-encoding"', b'"content-length"', b'"repr-digest"', b'"etag"',
    b'"vary"', b'"accept-ranges"', b'"digest"', b'"content-md5"',
)  # fmt: skip


SkipReason = Literal[
    "status",  # there is no body (204, 304 …), or a part of one (206)
    "already_encoded",  # the application has encoded the body
    "opted_out",  # by @no_compression, Content-Encoding: identity or filter=
    "no_transform",  # Cache-Control of the request or the response forbids it
    "signed",  # a signature covers headers that would change
    "media_type",  # not one of media_types
    "head_request",  # a response to HEAD has no body
    "not_modified",  # 304
    "too_small",  # below minimum_size
    "not_accepted",  # the client accepts none of encodings
    "cross_site",  # see Guard
    "not_smaller",  # compression does not make this body smaller
    "wrong_length",  # the body is not as long as its Content-Length
    "busy",  # too many bodies wait for a thread, or max_streams are open
    "sent_by_server",  # by zerocopysend, or a path that cannot be read here
    "unknown_message",  # an ASGI message that is not known
    "unfinished",  # the application returned before the end of the body
]
"""Why a response was not compressed."""


class Head:
    """Status and headers of one response. The lists that it is given are never changed."""

    __slots__ = ("found", "headers", "status")

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers: Headers = headers if type(headers) is list else list(headers)
        # The values by name in lower case, several lines of one as a list: RFC 9110, section 5.3.
        self.found: dict[bytes, bytes] = {}
        found = self.found
        for name, value in self.headers:
            key = name.lower()
            found[key] = found[key] + b", " + value if key in found else value

    @property
    def content_length(self) -> int | None:
        value = self.found.get(b"content-length")
        # More digits than any body has bytes are nobody's honest word, and slow to read.
        return int(value) if value is not None and value.isdigit() and len(value) < 20 else None

    def varies_at_most_by(self, names: Collection[bytes]) -> bool:
        """Is there nothing else in the request, lower case, that the answer depends on?"""
        vary = self.found.get(b"vary", b"").lower()
        return {name.strip() for name in vary.split(b",")} <= {b"", *names}

    def untouchable(self, method: str) -> SkipReason | None:
        """Why nothing of it may be changed, by RFC 9110 and by the application's own word."""
        status = self.status
        found = self.found
        if status < 200 or status in _UNTOUCHED_STATUSES or b"content-range" in found:
            return "status"
        if method == "CONNECT" and status < 300:
            return "status"
        if b"content-encoding" in found:
            return "opted_out" if self.asks_for_identity else "already_encoded"
        if b"cache-control" in found and forbids_transform(found[b"cache-control"]):
            return "no_transform"
        if b"signature-input" in found and _covers_what_changes(found[b"signature-input"]):
            return "signed"
        return None

    @property
    def asks_for_identity(self) -> bool:
        # "identity" has no business in Content-Encoding (RFC 9110, section 8.4), which leaves it
        # free to say: leave this one alone.
        return self.found.get(b"content-encoding", b"gzip").strip().lower() in {b"", b"identity"}

    def without_encoding(self) -> Headers:
        return [line for line in self.headers if line[0].lower() != b"content-encoding"]

    def varying(self, by: bytes = b"Accept-Encoding") -> Headers:
        """The headers, with Vary naming what the coding depends on. RFC 9110, section 12.5.5."""
        vary = self.found.get(b"vary")
        if vary is None:
            return [*self.headers, (b"vary", by)]
        merged = _merged(vary, by)
        if merged == vary:
            return self.headers
        return [*(line for line in self.headers if line[0].lower() != b"vary"), (b"vary", merged)]

    def coded(
        self,
        coding: str,
        etag: ETagPolicy,
        length: int | None = None,
        vary: bytes = b"Accept-Encoding",
    ) -> Headers:
        """The headers of the coded response; of so many bytes, if that is known."""
        headers = self.about_coded(coding, etag, vary)
        headers.append((b"content-encoding", coding.encode()))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        return headers

    def about_coded(
        self, coding: str, etag: ETagPolicy, vary: bytes = b"Accept-Encoding"
    ) -> Headers:
        """Those headers that hold for the coded response, too: a new list."""
        found = self.found
        headers = [line for line in self.headers if line[0].lower() not in _REPLACED]
        headers.append((b"vary", _merged(found[b"vary"], vary) if b"vary" in found else vary))
        if b"etag" in found and etag != "drop":
            headers.append((b"etag", coded_etag(found[b"etag"], etag, coding)))
        return headers

    def revalidated(self, if_none_match: bytes | None, etag: ETagPolicy) -> Headers:
        """The headers of a 304, with the validator of the variant that the client holds.

        That is the one that the 200 would have had. RFC 9110, section 15.4.5.
        """
        tag = self.found.get(b"etag")
        if if_none_match is None or tag is None or tag.startswith(b"W/"):
            return self.headers
        held = _TAG.findall(if_none_match)
        match etag:
            case "weaken":
                variants = [b"W/" + tag]
            case "suffix":
                variants = [coded_etag(tag, etag, coding) for coding in (*Coding, "dcz")]
            case _:
                return self.headers
        named = next((variant for variant in variants if variant in held), None)
        if named is None or tag in held:
            return self.headers
        return [(n, named if n.lower() == b"etag" else value) for n, value in self.headers]


def forbids_transform(cache_control: bytes) -> bool:
    """Does a Cache-Control value hold no-transform? RFC 9111, sections 5.2.1.6 and 5.2.2.6."""
    return b"no-transform" in cache_control.lower() and any(
        directive.strip().lower() == b"no-transform" for directive in cache_control.split(b",")
    )


def is_shared(cache_control: bytes) -> bool:
    """Does a Cache-Control value let shared caches store the answer? RFC 9111, section 5.2.2."""
    directives = {part.partition(b"=")[0].strip().lower() for part in cache_control.split(b",")}
    return bool(directives & {b"public", b"s-maxage"}) and not directives & {
        b"private",
        b"no-store",
    }


def coded_etag(tag: bytes, policy: ETagPolicy, coding: str) -> bytes:
    """The validator of the coded variant. A strong one names exact bytes: RFC 9110, 8.8.1."""
    if not _TAG.fullmatch(tag) or tag.startswith(b"W/"):
        return tag
    match policy:
        case "weaken":
            return b"W/" + tag
        case "suffix":
            return tag[:-1] + b"--" + coding.encode() + b'"'
        case _:
            return tag


def without_suffixes(tags: bytes) -> bytes:
    """Undo what the suffix policy did, in the value of If-None-Match or If-Match."""
    return _SUFFIX.sub(b'"', tags)


# entity-tag: RFC 9110, section 8.8.3. There may be commas in it.
_TAG: Final = re.compile(rb'(?:W/)?"[^"]*"')
_SUFFIX: Final = re.compile(rb'--(?:%s|dcz)"' % b"|".join(coding.encode() for coding in Coding))


def _covers_what_changes(signature_input: bytes) -> bool:
    covered = signature_input.lower()
    return any(component in covered for component in _SIGNED)


def _merged(vary: bytes, names: bytes) -> bytes:
    """A value of Vary that names these, too."""
    present = {name.strip().lower() for name in vary.split(b",")} - {b""}
    if b"*" in present:
        return vary
    wanted = [name.strip() for name in names.split(b",")]
    missing = [name for name in wanted if name.lower() not in present]
    if not missing:
        return vary
    return b", ".join([vary, *missing] if present else missing)
