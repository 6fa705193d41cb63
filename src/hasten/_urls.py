"""URLs of stores: what may be shown of them."""

from __future__ import annotations

from typing import Final

_SECRETS: Final = ("password", "sentinel_password")


def without_password(url: str) -> str:
    """A URL, well formed or not, as it may be shown in a message or a log."""
    location, mark, query = url.partition("?")
    scheme, separator, rest = location.partition("://")
    credentials, at, place = rest.rpartition("@")
    if at:
        user = credentials.partition(":")[0]
        location = f"{scheme}{separator}{user}@{place}" if user else f"{scheme}{separator}{place}"
    kept = [pair for pair in query.split("&") if pair.partition("=")[0].lower() not in _SECRETS]
    return location + mark + "&".join(kept) if any(kept) else location
