"""URLs of stores: what may be shown of them."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_plus

_SECRETS: Final = frozenset({"password", "sentinel_password"})


def without_password(url: str) -> str:
    """A URL, well formed or not, as it may be shown in a message or a log.

    What stands before the last "@" are credentials, for a password may hold any character by
    mistake. Of them a user's name is kept, if the URL is well formed so far.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url.rpartition("@")[2]
    credentials, at, place = rest.rpartition("@")
    user = credentials.partition(":")[0] if ":" in credentials else credentials
    if at and user and "?" not in credentials:
        place = f"{user}@{place}"
    location, mark, query = place.partition("?")
    kept = [pair for pair in query.split("&") if not _is_secret(pair)]
    location = f"{scheme}{separator}{location}"
    return location + mark + "&".join(kept) if any(kept) else location


def _is_secret(pair: str) -> bool:
    return unquote_plus(pair.partition("=")[0]).strip().lower() in _SECRETS
