"""Parse Accept-Encoding, and find the encoding that a client prefers. RFC 9110, section 12.5.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from hasten._quality import parse_weights_in_thousandths

MAX_HEADER_BYTES: Final = 1024
"""A longer Accept-Encoding is ignored: no real client sends one."""

IDENTITY: Final = "identity"

# RFC 9110, section 8.4.1.3: x-gzip is equivalent to gzip.
_ALIASES: Final = {"x-gzip": "gzip"}


class Coding(StrEnum):
    """A content coding. The value is its registered name, as in Content-Encoding."""

    ZSTD = "zstd"
    BROTLI = "br"
    GZIP = "gzip"
    DEFLATE = "deflate"


@dataclass(frozen=True, slots=True)
class CodingPreferences:
    """The offered codings that a client accepts, and whether it accepts uncompressed bodies."""

    codings: tuple[Coding, ...]
    """The codings that the client prefers to identity or likes as much, the best one first."""

    refuses_identity: bool
    """Whether the header has ``identity;q=0``, or ``*;q=0`` without a weight for identity."""

    @property
    def refuses_codings_and_identity(self) -> bool:
        """Whether the client accepts neither an offered coding nor an uncompressed body."""
        return self.refuses_identity and not self.codings


NO_PREFERENCES: Final = CodingPreferences((), refuses_identity=False)


def choose_codings(header: str | None, offered: Sequence[Coding]) -> CodingPreferences:
    """Return the offered codings that a client accepts, the preferred one first.

    header is the value of Accept-Encoding, None if absent. Of codings with equal weights, the first
    in offered wins. RFC 9110 allows any coding if there is no header, but none is returned then. A
    malformed member of the header counts as refused.
    """
    if not header or len(header) > MAX_HEADER_BYTES:
        return NO_PREFERENCES
    weights = parse_weights_in_thousandths(header, normalize_coding)
    others = weights.get("*", 0)
    # If the header does not mention identity, it is acceptable, but any coding is preferred to it.
    identity = weights.get(IDENTITY, weights.get("*"))
    least = max(identity or 0, 1)
    ranked = sorted(offered, key=lambda coding: -weights.get(coding, others))
    return CodingPreferences(
        tuple(coding for coding in ranked if weights.get(coding, others) >= least),
        refuses_identity=identity == 0,
    )


def normalize_coding(name: str) -> str:
    """Return a coding name from a header in lower case, with x-gzip replaced by gzip.

    RFC 9110, section 8.4.1.
    """
    name = name.strip(" \t").lower()
    return _ALIASES.get(name, name)


def make_cached_chooser(offered: Sequence[Coding]) -> Callable[[bytes], CodingPreferences]:
    """Return a function like `choose_codings` for fixed offered codings, which caches its results.

    It takes the header as bytes. Callers must not pass headers above MAX_HEADER_BYTES, so that
    clients cannot fill the cache with large ones.
    """

    @lru_cache(maxsize=256)
    def choose_cached(header: bytes) -> CodingPreferences:
        return choose_codings(header.decode("latin-1"), offered)

    return choose_cached
