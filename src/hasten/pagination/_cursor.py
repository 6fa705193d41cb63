"""Cursors: signed tokens of the position where a page begins or ends.

A token is base64url, without padding, of

    version (1 byte), direction (1), fingerprint of the query (16), values (any), mac (16)

The mac is HMAC-SHA256 of all bytes before it, cut to 128 bits (RFC 2104, section 5). It is verified
first: no other part of a token is decoded before that. It stays the last 16 bytes in every version,
so that a valid token of another version can be distinguished from an invalid one.

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
from typing import Any, Final
from uuid import UUID

from hasten.errors import InvalidOption, InvalidParameter

PARAMETER: Final = "cursor"

MAX_CHARS: Final = 2048
"""Longer tokens are rejected before they are decoded, and never created."""

_VERSION: Final = 1
_MAC_BYTES: Final = 16
_FINGERPRINT_BYTES: Final = 16
_HEAD_BYTES: Final = 2 + _FINGERPRINT_BYTES
_MIN_SECRET_BYTES: Final = 16

# Bounds for secrets that can be guessed. 16 random hex digits have ten different ones on average.
_MIN_DIFFERENT: Final = 6
_MAX_EVEN_STEPS: Final = 2
_PLACEHOLDER: Final = re.compile(rb"change[-_ ]?(me|this|it)|placeholder", re.IGNORECASE)

# Distinguishes cursors from other data that is signed with the same secret. It must never change,
# or the tokens of all clients become invalid.
_PURPOSE: Final = b"hasten.pagination.cursor\0"

_START_AGAIN: Final = "omit it to start from the first page"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position between two rows: the values of the sort keys in the row before it."""

    values: tuple[object, ...]
    backwards: bool = False
    """Whether the page ends at the position; then the values are those of the row after it."""

    fingerprint: bytes = field(default=b"", compare=False)
    """The fingerprint of its query, if the cursor was read from a token."""

    def check(self, expected: bytes) -> None:
        """Raise `InvalidParameter` (400) unless the cursor belongs to the query."""
        if self.fingerprint != expected:
            raise InvalidParameter(
                PARAMETER,
                None,
                "it belongs to another query: a cursor is only valid with the sort and the filters "
                f"of the response that it comes from; {_START_AGAIN}",
                code="cursor_mismatch",
                status=400,
            )


class SigningKeys:
    """The secrets that tokens are signed with. The first one signs; all of them verify.

    To change a secret, put the new one before the old one, and remove the old one when no client
    has its tokens any more. Raises `InvalidOption` for no secret, or for one below 16 bytes.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: str | bytes | Sequence[str | bytes]) -> None:
        several = [secrets] if isinstance(secrets, str | bytes) else secrets or ()
        self._secrets = [_to_secret(secret) for secret in several]
        if not self._secrets:
            raise InvalidOption("secret", secrets, "a secret of at least 16 random bytes")

    def sign(self, cursor: Cursor, fingerprint: bytes) -> str:
        """Encode and sign a cursor of the query with this fingerprint.

        Raises `InvalidOption` if a value has a type that a cursor cannot contain, and if the values
        are too long.
        """
        if len(fingerprint) != _FINGERPRINT_BYTES:
            raise ValueError(f"the fingerprint has {len(fingerprint)} bytes: must be 16")
        head = bytes((_VERSION, cursor.backwards)) + fingerprint
        body = head + b"".join(map(_encode, cursor.values))
        token = _to_base64(body + _mac(self._secrets[0], body))
        if len(token) > MAX_CHARS:
            raise InvalidOption(
                "sort",
                f"a cursor of {len(token):,} characters",
                f"shorter values to sort by: {MAX_CHARS:,} characters are allowed",
            )
        return token

    def verify(self, token: str, fingerprint: bytes) -> Cursor:
        """Return the cursor of a token. Raises `InvalidParameter` (400) if the query differs."""
        cursor = self.read(token)
        cursor.check(fingerprint)
        return cursor

    def read(self, token: str) -> Cursor:
        """Return the cursor of a token, of any query.

        Raises `InvalidParameter` (400): "invalid_cursor" if the signature is invalid,
        "cursor_expired" if another version of hasten wrote it.
        """
        body = self._opened(token)
        if body[0] != _VERSION:
            raise _refused("it was made by another version of this service", "cursor_expired")
        try:
            values = tuple(_decode_all(body[_HEAD_BYTES:]))
        except (ValueError, LookupError, ArithmeticError, struct.error):
            # Only reached if other data is signed with the same secret and purpose.
            raise _refused("it is damaged", "invalid_cursor") from None
        return Cursor(values, bool(body[1]), body[2:_HEAD_BYTES])

    def _opened(self, token: str) -> bytes:
        if len(token) > MAX_CHARS:
            raise _refused(f"it has more than {MAX_CHARS} characters", "invalid_cursor")
        signed = _from_base64(token)
        body, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        if len(body) < _HEAD_BYTES or not any(
            hmac.compare_digest(mac, _mac(secret, body)) for secret in self._secrets
        ):
            raise _refused("it is damaged or comes from another service", "invalid_cursor")
        return body


def fingerprint(*parts: object) -> bytes:
    """Return the fingerprint of a query: its order, its filters and its scope.

    parts are of the types that a cursor can hold, or lists and tuples of them. It has 128 bits:
    with fewer, a client could search for two queries that share a fingerprint.
    """
    digest = hashlib.sha256()
    _digest(digest, parts)
    return digest.digest()[:_FINGERPRINT_BYTES]


def _digest(digest: hashlib._Hash, parts: Sequence[object]) -> None:
    # Lengths before contents, so that no two queries have the same bytes.
    digest.update(b"[" + _length(len(parts)))
    for part in parts:
        if isinstance(part, list | tuple):
            _digest(digest, part)
        else:
            digest.update(_encode(part))


def _to_secret(secret: object) -> bytes:
    raw = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(raw, bytes) or len(raw) < _MIN_SECRET_BYTES:
        # The value must not appear in a log.
        raise InvalidOption("secret", "***", "a secret of at least 16 random bytes")
    if _is_guessable(raw):
        raise InvalidOption(
            "secret",
            "***",
            "random bytes: this one can be guessed. "
            "python -c 'import secrets; print(secrets.token_hex())' prints one",
        )
    return raw


def _is_guessable(secret: bytes) -> bool:
    """Return whether a secret repeats itself, is a part of an alphabet, or is a placeholder."""
    steps = {(after - before) % 256 for before, after in pairwise(secret)}
    return (
        len(set(secret)) < _MIN_DIFFERENT
        or len(steps) <= _MAX_EVEN_STEPS
        or secret in (secret + secret)[1:-1]
        or _PLACEHOLDER.search(secret) is not None
    )


def _refused(reason: str, code: str) -> InvalidParameter:
    return InvalidParameter(PARAMETER, None, f"{reason}; {_START_AGAIN}", code=code, status=400)


def hidden_in_cursor(key: str) -> InvalidOption:
    """Return the error for sorting by a field that the response does not show.

    Cursors are signed but not encrypted: a client could read the values of that field.
    """
    return InvalidOption(
        "sort",
        key,
        "fields that each row shows, because a client can read the values in a cursor: "
        "show it as a field, or use mode='page'",
    )


def expired() -> InvalidParameter:
    """Return the error for a cursor with a value that does not exist any more."""
    return _refused("it comes from an earlier version of this list", "cursor_expired")


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + body, "sha256")[:_MAC_BYTES]


def _to_base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64(token: str) -> bytes:
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raw = b""
    # The decoder skips other characters and ignores the last bits, so encode again.
    return raw if _to_base64(raw) == token else b""


# The values ---------------------------------------------------------------------------------------
#
# Each is a letter for its type, the length of the content, and the content.


def _encode(value: object) -> bytes:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return b"n\0"
    for kind, letter, to_bytes in _ENCODERS:
        if isinstance(value, kind):
            raw = to_bytes(value)
            return letter + _length(len(raw)) + raw
    raise InvalidOption(
        "sort",
        f"a value of type {type(value).__qualname__}",
        "values that a cursor can hold: sort by another key",
    )


def _decode_all(raw: bytes) -> Iterator[object]:
    at = 0
    while at < len(raw):
        decode = _DECODERS[raw[at]]
        size, start = _read_length(raw, at + 1)
        at = start + size
        yield decode(raw[start:at])


def _length(size: int) -> bytes:
    # Seven bits in each byte; the highest bit is set if more bytes follow.
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


def _read_length(raw: bytes, at: int) -> tuple[int, int]:
    """Return the length that is stored at this index, and the index after it."""
    size = shift = 0
    while True:
        byte = raw[at]
        size |= (byte & 0x7F) << shift
        at += 1
        if byte <= 0x7F:
            return size, at
        shift += 7


def _int_to_bytes(value: int) -> bytes:
    return int(value).to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _int_from_bytes(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


_MICROSECOND: Final = timedelta(microseconds=1)

# In this order: a bool is an int, and a datetime is a date. A time zone is kept as its offset;
# fold is not kept, because no database stores it.
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
