"""Warnings about a probable mistake in the set-up of limits, each logged once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hasten._logs import get_logger

logger = get_logger("hasten.ratelimit")

_TEXTS: Final[Mapping[str, str]] = {
    "FORWARDED_BROKEN": "a trusted proxy sends a header that cannot be parsed: the nearest address "
    "that is known is counted as the client. Check proxy_header= and the proxy",
    "OTHER_HEADER": "a trusted proxy sends the client's address in another header than "
    "proxy_header: all its clients are counted as one. Set proxy_header= to that header",
    "NO_CLIENT": "the server provides no client address: all clients without one are counted as "
    "one. Behind a Unix socket, let the proxy send the address in a header, and set hops=1",
    "FORWARDED_HEADER": "requests arrive through a proxy that is not trusted, and all its clients "
    "are counted as one. Add the proxy to trusted_proxies=, or let the server set the client's "
    "address",
    "DOUBLE_COUNT": "two middlewares around one application have equal limits: the inner one does "
    "not count them again. Install the middleware once, or give each its own namespace=",
    "ROOT_PATH": "it is unknown whether the application removes the root path: limits are "
    "matched with and without it. Write the paths of limits like those of the routes, and add the "
    "middleware with app.add_middleware instead of wrapping the application",
    "MOUNT_PATH": "the path of a limit is relative to an application that Litestar mounts: it is "
    "matched with and without the path of the mount. Write the whole path, including the mount",
    "KEY_ADDRESS": "a key function returns the address of the connection: all clients behind a "
    "proxy are counted as one, and an IPv6 client can use many addresses. Return request.client",
}


class OperatorWarnings:
    """The warnings of a middleware about its set-up. Each is logged once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def warn_once(self, warning_code: str, detail: str = "") -> None:
        """Log the warning with this code, unless it was logged before.

        detail is appended to the text of the warning.
        """
        if warning_code not in self._logged:
            self._logged.add(warning_code)
            logger.warning(
                "%s%s [%s]", _TEXTS[warning_code], detail and f" ({detail})", warning_code
            )
