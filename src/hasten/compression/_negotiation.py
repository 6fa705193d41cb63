"""Which content coding a client prefers: Accept-Encoding, RFC 9110, section 12.5.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from hasten._quality import parse_weights

MAX_HEADER_BYTES: Final = 1024
"""A longer Accept-Encoding is ignored: no real client sends one."""

IDENTITY: Final = "identity"

# RFC 9110, section 8.4.1.3: x-gzip is equivalent to gzip.
_ALIASES: Final = {"x-gzip": "gzip"}


class Coding(StrEnum):
    """A content coding, by its registered name."""

    ZSTD = "zstd"
    BROTLI = "br"
    GZIP = "gzip"
    DEFLATE = "deflate"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client accepts of the offered codings."""

    codings: tuple[Coding, ...]
    """The acceptable codings with at least the weight of identity, the preferred one first."""

    refuses_identity: bool
    """The header has ``identity;q=0``, or ``*;q=0`` and does not mention identity."""

    @property
    def accepts_nothing(self) -> bool:
        return self.refuses_identity and not self.codings


NO_PREFERENCES: Final = Preferences((), refuses_identity=False)


def choose(header: str | None, offered: Sequence[Coding]) -> Preferences:
    """Order the offered codings by the weights of an Accept-Encoding value, None if absent.

    The order of offered decides between equal weights. Without a header, nothing is compressed,
    although anything would be allowed. A malformed member counts as refused.
    """
    if not header or len(header) > MAX_HEADER_BYTES:
        return NO_PREFERENCES
    weights = parse_weights(header, normalize_coding)
    others = weights.get("*", 0)
    # Identity is acceptable without a mention, but then every other coding is preferred.
    identity = weights.get(IDENTITY, weights.get("*"))
    least = max(identity or 0, 1)
    ranked = sorted(offered, key=lambda coding: -weights.get(coding, others))
    return Preferences(
        tuple(coding for coding in ranked if weights.get(coding, others) >= least),
        refuses_identity=identity == 0,
    )


def normalize_coding(name: str) -> str:
    """Return the registered name of a coding in a header. RFC 9110, section 8.4.1."""
    name = name.strip(" \t").lower()
    return _ALIASES.get(name, name)


def make_chooser(offered: Sequence[Coding]) -> Callable[[bytes], Preferences]:
    """Return a cached `choose` for one offer, which takes the bytes of the header.

    Do not call it with headers above MAX_HEADER_BYTES: they would be cached, too.
    """

    @lru_cache(maxsize=256)
    def choose_cached(header: bytes) -> Preferences:
        return choose(header.decode("latin-1"), offered)

    return choose_cached
