"""Which content coding a client wants most: Accept-Encoding, RFC 9110, section 12.5.3."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

MAX_HEADER_BYTES: Final = 1024
"""A longer Accept-Encoding is nobody's honest wish: it is not parsed."""

IDENTITY: Final = "identity"

# weight = OWS ";" OWS "q=" qvalue. RFC 9110, section 12.4.2.
_QVALUE: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)

# RFC 9110, section 8.4.1.3: recipients take x-gzip for gzip.
_ALIASES: Final = {"x-gzip": "gzip"}


class Coding(StrEnum):
    """A content coding, by its registered name."""

    ZSTD = "zstd"
    BROTLI = "br"
    GZIP = "gzip"
    DEFLATE = "deflate"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client accepts of what is offered."""

    codings: tuple[Coding, ...]
    """Acceptable and wanted at least as much as identity; the best first."""

    refuses_identity: bool
    """Said ``identity;q=0``, or ``*;q=0`` and nothing of identity."""

    @property
    def cannot_be_met(self) -> bool:
        return self.refuses_identity and not self.codings


NO_WISHES: Final = Wishes((), refuses_identity=False)


def choose(header: str | None, offered: Sequence[Coding]) -> Wishes:
    """Order what is offered by the weights in an Accept-Encoding value, None if absent.

    offered is in our order of preference and decides between equal weights. Without a header
    nothing is coded, although anything would be allowed. A member that makes no sense counts as
    refused.
    """
    if not header or len(header) > MAX_HEADER_BYTES:
        return NO_WISHES
    weights = parse_weights(header)
    others = weights.get("*", 0)
    # Identity needs no mention to be acceptable. Unmentioned it is the last resort.
    identity = weights.get(IDENTITY, weights.get("*"))
    least = max(identity or 0, 1)
    ranked = sorted(offered, key=lambda coding: -weights.get(coding, others))
    return Wishes(
        tuple(coding for coding in ranked if weights.get(coding, others) >= least),
        refuses_identity=identity == 0,
    )


def parse_weights(header: str) -> Mapping[str, int]:
    """The weights of an Accept-Encoding value in thousandths, by coding in lower case or "*".

    A coding that is named twice has the lower weight: a refusal is never overruled.
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
    """The registered name of a coding as it stands in a header. RFC 9110, section 8.4.1."""
    name = name.strip(" \t").lower()
    return _ALIASES.get(name, name)


def _parse_weight(parameters: Sequence[str]) -> int:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip(" \t") in {"q", "Q"}:
            value = value.strip(" \t")  # no space belongs here; to refuse is what it may mean
            return round(float(value) * 1000) if _QVALUE.fullmatch(value) else 0
    return 1000


def chooser(offered: Sequence[Coding]) -> Callable[[bytes], Wishes]:
    """`choose` for one offer, on the bytes of the header; remembers what browsers often send.

    Not for headers above MAX_HEADER_BYTES, which would be remembered, too.
    """

    @lru_cache(maxsize=256)
    def choose_remembered(header: bytes) -> Wishes:
        return choose(header.decode("latin-1"), offered)

    return choose_remembered
