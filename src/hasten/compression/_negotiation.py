"""Which content coding a client prefers: Accept-Encoding, RFC 9110, section 12.5.3."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

MAX_HEADER_BYTES: Final = 1024
"""A longer Accept-Encoding is ignored: no real client sends one."""

IDENTITY: Final = "identity"

# weight = OWS ";" OWS "q=" qvalue. RFC 9110, section 12.4.2.
_QVALUE: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)

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
    weights = parse_weights(header)
    others = weights.get("*", 0)
    # Identity is acceptable without a mention, but then every other coding is preferred.
    identity = weights.get(IDENTITY, weights.get("*"))
    least = max(identity or 0, 1)
    ranked = sorted(offered, key=lambda coding: -weights.get(coding, others))
    return Preferences(
        tuple(coding for coding in ranked if weights.get(coding, others) >= least),
        refuses_identity=identity == 0,
    )


def parse_weights(header: str) -> Mapping[str, int]:
    """Return the weights of an Accept-Encoding value in thousandths, by lower-case coding or "*".

    A coding that is listed twice has the lower weight, so that a refusal always counts.
    """
    weights: dict[str, int] = {}
    for member in header.split(","):
        name, *parameters = member.split(";")
        coding = coding_name(name)
        if coding:
            weight = _parse_weight(parameters)
            weights[coding] = min(weight, weights.get(coding, weight))
    return weights


def coding_name(name: str) -> str:
    """Return the registered name of a coding in a header. RFC 9110, section 8.4.1."""
    name = name.strip(" \t").lower()
    return _ALIASES.get(name, name)


def _parse_weight(parameters: Sequence[str]) -> int:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip(" \t") in {"q", "Q"}:
            value = value.strip(" \t")  # no space belongs here; to refuse is what it may mean
            return round(float(value) * 1000) if _QVALUE.fullmatch(value) else 0
    return 1000


def chooser(offered: Sequence[Coding]) -> Callable[[bytes], Preferences]:
    """Return a cached `choose` for one offer, which takes the bytes of the header.

    Do not call it with headers above MAX_HEADER_BYTES: they would be cached, too.
    """

    @lru_cache(maxsize=256)
    def choose_cached(header: bytes) -> Preferences:
        return choose(header.decode("latin-1"), offered)

    return choose_cached
