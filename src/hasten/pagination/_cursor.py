"""Cursors: signed tokens that contain the position where a page begins or ends.

A token consists of these fields, encoded as base64url without padding:

    version (1 byte), direction (1), fingerprint of the query (16), values (variable), mac (16)

The mac is the HMAC-SHA256 of all bytes before it, truncated to 128 bits (RFC 2104, section 5). It
is verified before any other field is decoded. It is the last 16 bytes in every version of the
format, so a valid token of another version can be distinguished from a forged one.

Tokens are signed, not encrypted: a client can read the values.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from typing import Any, Final, TypeAlias
from uuid import UUID

from hasten.errors import InvalidOption, InvalidParameter

PARAMETER: Final = "cursor"

MAX_CHARS: Final = 2048
"""The maximum length of a token. Longer ones are not created, and are rejected undecoded."""

_VERSION: Final = 1
_MAC_BYTES: Final = 16
_FINGERPRINT_BYTES: Final = 16
_HEAD_BYTES: Final = 2 + _FINGERPRINT_BYTES
_MIN_SECRET_BYTES: Final = 16

# A secret with fewer different bytes, or with few different steps from one byte to the next (as in
# "abcdef…"), is not random. 16 random hex digits have ten different bytes on average.
_MIN_DIFFERENT: Final = 6
_MAX_EVEN_STEPS: Final = 2
_PLACEHOLDER: Final = re.compile(rb"change[-_ ]?(me|this|it)|placeholder", re.IGNORECASE)

# Part of the signed bytes, so that other data signed with the same secret is not a valid cursor.
# If it changed, the tokens of all clients would become invalid.
_PURPOSE: Final = b"hasten.pagination.cursor\0"

_START_AGAIN: Final = "omit it to start from the first page"


NextIndex: TypeAlias = int


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the sorted rows, and the direction in which a page is read from it.

    The position is a row, given by the values of its sort keys. The page begins after this row; if
    backwards, it ends before it.
    """

    values: tuple[object, ...]
    """The values of the sort keys; empty for the start of all rows (backwards: for their end)."""
    backwards: bool = False
    """Whether the page ends before the position, instead of beginning after it."""

    fingerprint: bytes = field(default=b"", compare=False)
    """The fingerprint of the query that the token was created for; empty without a token."""

    def check(self, expected_fingerprint: bytes) -> None:
        """Raise `InvalidParameter` (400) unless the cursor was created for the current query.

        expected_fingerprint is the fingerprint of the current query.
        """
        if self.fingerprint != expected_fingerprint:
            raise InvalidParameter(
                PARAMETER,
                None,
                "it belongs to another query: a cursor is only valid with the sort and the filters "
                f"of the response that it comes from; {_START_AGAIN}",
                code="cursor_mismatch",
                status=400,
            )


class SigningKeys:
    """The secrets that cursors are signed with. The first one signs; all of them verify.

    To replace a secret, put the new one before the old one. Remove the old one when clients no
    longer hold tokens that it signed. Raises `InvalidOption` if there is no secret, if one is
    shorter than 16 bytes, and if one is easy to guess.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: str | bytes | Sequence[str | bytes]) -> None:
        several = [secrets] if isinstance(secrets, str | bytes) else secrets or ()
        self._secrets = [_to_secret(secret) for secret in several]
        if not self._secrets:
            raise InvalidOption("secret", secrets, "a secret of at least 16 random bytes")

    def sign(self, cursor: Cursor, fingerprint: bytes) -> str:
        """Return a token for a cursor of the query with this fingerprint.

        Raises `InvalidOption` if a cursor cannot contain a value's type, or if the token would have
        more than `MAX_CHARS` characters.
        """
        if len(fingerprint) != _FINGERPRINT_BYTES:
            raise ValueError(f"the fingerprint has {len(fingerprint)} bytes: must be 16")
        head = bytes((_VERSION, cursor.backwards)) + fingerprint
        body = head + b"".join(map(_encode_value, cursor.values))
        token = _to_base64(body + _compute_mac(self._secrets[0], body))
        if len(token) > MAX_CHARS:
            raise InvalidOption(
                "sort",
                f"a cursor of {len(token):,} characters",
                f"at most {MAX_CHARS:,} characters long: sort by fields with shorter values",
            )
        return token

    def verify(self, token: str, fingerprint: bytes) -> Cursor:
        """Decode a token, and check that it belongs to the query with this fingerprint.

        Raises `InvalidParameter` (400) if it does not, and in the cases of
        `decode_and_verify_signature`.
        """
        cursor = self.decode_and_verify_signature(token)
        cursor.check(fingerprint)
        return cursor

    def decode_and_verify_signature(self, token: str) -> Cursor:
        """Verify the signature of a token, and decode it. It may belong to any query.

        Raises `InvalidParameter` (400) with the code "invalid_cursor" if the signature is invalid,
        or "cursor_expired" if the token has the format of another version of hasten.
        """
        body = self._verify_and_strip_mac(token)
        if body[0] != _VERSION:
            raise _cursor_error("it was made by another version of this service", "cursor_expired")
        try:
            values = tuple(_decode_values(body[_HEAD_BYTES:]))
        except (ValueError, LookupError, ArithmeticError, struct.error):
            # The signature is valid, so this is other data that was signed for the same purpose.
            raise _cursor_error("it is damaged", "invalid_cursor") from None
        return Cursor(values, bool(body[1]), body[2:_HEAD_BYTES])

    def _verify_and_strip_mac(self, token: str) -> bytes:
        """Return the bytes of a token before its mac, after verifying the mac."""
        if len(token) > MAX_CHARS:
            raise _cursor_error(f"it has more than {MAX_CHARS} characters", "invalid_cursor")
        signed = _from_base64(token)
        body, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        if len(body) < _HEAD_BYTES or not any(
            hmac.compare_digest(mac, _compute_mac(secret, body)) for secret in self._secrets
        ):
            raise _cursor_error("it is damaged or comes from another service", "invalid_cursor")
        return body


def compute_fingerprint(*parts: object) -> bytes:
    """Return a 128-bit hash of the values that identify a query: its order, filters and scope.

    parts are values of the types that a cursor can contain, or lists and tuples of them. A shorter
    hash would let a client search for two queries with the same fingerprint.
    """
    digest = hashlib.sha256()
    _update_digest(digest, parts)
    return digest.digest()[:_FINGERPRINT_BYTES]


def _update_digest(digest: hashlib._Hash, parts: Sequence[object]) -> None:
    # Each length precedes its content. Otherwise ["ab", "c"] would have the bytes of ["a", "bc"].
    digest.update(b"[" + _encode_length(len(parts)))
    for part in parts:
        if isinstance(part, list | tuple):
            _update_digest(digest, part)
        else:
            digest.update(_encode_value(part))


def _to_secret(secret: object) -> bytes:
    raw = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(raw, bytes) or len(raw) < _MIN_SECRET_BYTES:
        # The message must not contain the secret, because messages are logged.
        raise InvalidOption("secret", "***", "a secret of at least 16 random bytes")
    if _is_guessable(raw):
        raise InvalidOption(
            "secret",
            "***",
            "random bytes, but this secret is easy to guess. To generate one, run "
            "python -c 'import secrets; print(secrets.token_hex())'",
        )
    return raw


def _is_guessable(secret: bytes) -> bool:
    """Return whether a secret is not random: repeated bytes, a sequence, or "changeme"."""
    steps = {(after - before) % 256 for before, after in pairwise(secret)}
    return (
        len(set(secret)) < _MIN_DIFFERENT
        or len(steps) <= _MAX_EVEN_STEPS
        or secret in (secret + secret)[1:-1]
        or _PLACEHOLDER.search(secret) is not None
    )


def _cursor_error(reason: str, code: str) -> InvalidParameter:
    return InvalidParameter(PARAMETER, None, f"{reason}; {_START_AGAIN}", code=code, status=400)


def hidden_sort_key_error(key: str) -> InvalidOption:
    """Return the error for a cursor whose order contains a field that rows do not show.

    Cursors are signed but not encrypted, so a client could read the values of that field.
    """
    return InvalidOption(
        "sort",
        key,
        "a field that each row shows, because clients can read the sort values in a cursor: add it "
        "to the response, or use mode='page'",
    )


def expired_cursor_error() -> InvalidParameter:
    """Return the error for a cursor with an enum value that has been removed from the code."""
    return _cursor_error("it comes from an earlier version of this list", "cursor_expired")


def _compute_mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + body, "sha256")[:_MAC_BYTES]


def _to_base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64(token: str) -> bytes:
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raw = b""
    # The decoder skips invalid characters and ignores unused bits at the end. Only the exact text
    # that encoding produces is accepted, so that each cursor has one token.
    return raw if _to_base64(raw) == token else b""


# The values ---------------------------------------------------------------------------------------
#
# A value is encoded as a letter for its type, the length of its content, and its content.


def _encode_value(value: object) -> bytes:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return b"n\0"
    for kind, letter, to_byte_count in _ENCODERS:
        if isinstance(value, kind):
            raw = to_byte_count(value)
            return letter + _encode_length(len(raw)) + raw
    raise InvalidOption(
        "sort",
        f"a field whose values have the type {type(value).__qualname__}",
        "a field whose values a cursor can contain: sort by another field",
    )


def _decode_values(raw: bytes) -> Iterator[object]:
    at = 0
    while at < len(raw):
        decode = _DECODERS[raw[at]]
        size, start = _decode_length(raw, at + 1)
        at = start + size
        yield decode(raw[start:at])


def _encode_length(length: int) -> bytes:
    # Each byte holds seven bits, the lowest first; its highest bit is set if more bytes follow.
    out = bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _decode_length(raw: bytes, index: int) -> tuple[int, NextIndex]:
    """Decode the length at an index of raw. Returns the length and the index after it."""
    size = shift = 0
    while True:
        byte = raw[index]
        size |= (byte & 0x7F) << shift
        index += 1
        if byte <= 0x7F:
            return size, index
        shift += 7


def _int_to_bytes(value: int) -> bytes:
    return int(value).to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _int_from_bytes(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


_MICROSECOND: Final = timedelta(microseconds=1)

# The first matching type is used: bool stands before its base class int, and datetime before date.
# The time zone of a datetime is stored as an offset. Its fold is not stored, as in databases.
_ENCODERS: Final[Sequence[tuple[type, bytes, Callable[[Any], bytes]]]] = (
    (bool, b"?", lambda value: bytes((value,))),
    (int, b"i", _int_to_bytes),
    (str, b"s", lambda value: str.encode(value, "utf-8", "surrogatepass")),
    (datetime, b"m", lambda value: datetime.isoformat(value).encode()),
    (date, b"d", lambda value: date.isoformat(value).encode()),
    (UUID, b"u", lambda value: value.bytes),
    (float, b"f", lambda value: struct.pack(">d", value)),
    (Decimal, b"D", lambda value: Decimal.__str__(value).encode()),
    (bytes, b"b", bytes),
    (bytearray, b"b", bytes),
    (memoryview, b"b", bytes),
    (time, b"t", lambda value: time.isoformat(value).encode()),
    (timedelta, b"z", lambda value: _int_to_bytes(value // _MICROSECOND)),
)

_DECODERS: Final[Mapping[int, Callable[[bytes], object]]] = {
    ord("n"): lambda raw: None,
    ord("?"): lambda raw: raw == b"\1",
    ord("i"): _int_from_bytes,
    ord("s"): lambda raw: raw.decode("utf-8", "surrogatepass"),
    ord("m"): lambda raw: datetime.fromisoformat(raw.decode()),
    ord("d"): lambda raw: date.fromisoformat(raw.decode()),
    ord("u"): lambda raw: UUID(bytes=raw),
    ord("f"): lambda raw: struct.unpack(">d", raw)[0],
    ord("D"): lambda raw: Decimal(raw.decode()),
    ord("b"): bytes,
    ord("t"): lambda raw: time.fromisoformat(raw.decode()),
    ord("z"): lambda raw: _int_from_bytes(raw) * _MICROSECOND,
}
