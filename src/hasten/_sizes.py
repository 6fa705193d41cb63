"""Convert sizes of public options, such as 65536 or "64kb", to bytes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, TypeAlias

from hasten._checks import is_int_not_bool
from hasten.errors import InvalidOption

Size: TypeAlias = int | str
"""Bytes as a number, or a string such as ``"64kb"`` or ``"10mb"``. 1 kb is 1,024 bytes."""

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb)?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {None: 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def to_byte_count(option: str, value: object, *, at_least: int = 0) -> int:
    """Convert a size to a number of bytes. A fraction of a byte is cut off.

    Raises `InvalidOption`, also for a size of less than at_least bytes.
    """
    if isinstance(value, str) and (parts := _SIZE.fullmatch(value.strip())):
        size = int(Decimal(parts[1]) * _UNITS[parts[2] and parts[2].lower()])
    elif is_int_not_bool(value):
        size = value
    else:
        expected = "bytes as a number, or as a string such as '64kb' or '10mb'"
        raise InvalidOption(option, value, expected)
    if not at_least <= size < 1 << 63:
        least = f"at least {at_least:,} {'byte' if at_least == 1 else 'bytes'}"
        expected = least if size < at_least else "less than 2**63 bytes"
        raise InvalidOption(option, value, expected, code="out_of_range")
    return size
