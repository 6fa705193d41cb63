"""Check the options of a `Limit`.

Each check_… function returns the value, converted for `Limit`, or raises `InvalidOption`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from hasten._checks import check_function
from hasten.errors import InvalidOption

KEYS: Final = ("ip", "global", "route")

# Characters that no decoded path contains, or that look like a pattern. A limit with such a path
# would never apply.
_INVALID_PATH: Final = re.compile(r"[*?#{}<>\x00-\x20]|%[0-9A-Fa-f]{2}")

_METHODS: Final = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())


def check_paths(option: str, value: object) -> tuple[str, ...]:
    """Return the paths as a tuple. value is one path or several."""
    given: Sequence[object] = value if isinstance(value, Sequence) else ()
    found = (value,) if isinstance(value, str) else tuple(map(str, given))
    if not found or not all(each.startswith("/") for each in found):
        raise InvalidOption(option, value, "a path that begins with '/', or a list of such paths")
    for each in found:
        if _INVALID_PATH.search(each):
            expected = "a decoded path without wildcards, ? and # (all paths below it are included)"
            raise InvalidOption(option, each, expected)
    return found


def check_methods(value: object) -> frozenset[str] | None:
    """Return the methods in upper case, with HEAD if there is GET; None for all methods."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise InvalidOption("methods", value, 'a list of methods, such as ["POST"]')
    named = frozenset(str(each).upper() for each in value)
    if unknown := named - _METHODS:
        expected = f"HTTP methods: {', '.join(sorted(_METHODS))}"
        raise InvalidOption("methods", min(unknown), expected)
    return named | {"HEAD"} if "GET" in named else named


def check_key(value: object) -> Any:
    """Return the option `key`: "ip", "global", "route" or a function of the request."""
    if callable(value):
        return check_function("key", value, "request", may_be_async=True)
    if value in KEYS:
        return value
    expected = "'ip', 'global', 'route' or a function of the request"
    raise InvalidOption("key", value, expected)


def check_counted_statuses(value: object) -> frozenset[int] | None:
    """Return the statuses of `count_statuses` as a set; None if the option is not set."""
    if value is None:
        return None
    found = value if isinstance(value, set | frozenset | list | tuple) else ()
    if found and all(isinstance(each, int) and 100 <= each <= 599 for each in found):
        return frozenset(found)
    raise InvalidOption(
        "count_statuses", value, "a set of statuses from 100 to 599, such as {401, 403}"
    )


def check_refusal_message(value: object) -> Any:
    """Return the option `message`: a string, a dict for JSON, a function, or None."""
    if callable(value):
        return check_function("message", value, "request", may_be_async=True)
    if value is None or isinstance(value, str):
        return value
    expected = "a string, a dict for JSON, or a function of the request"
    if isinstance(value, Mapping):
        try:
            json.dumps(value := dict(value))
        except (TypeError, ValueError):
            expected = "a dict for JSON: strings, numbers, True, False, None, lists and dicts"
        else:
            return value
    raise InvalidOption("message", value, expected)


def check_refusal_status(value: object) -> int:
    """Return the option `status`: the status of the response to refused requests."""
    if isinstance(value, int) and 400 <= value <= 599:
        return value
    raise InvalidOption("status", value, "an HTTP status from 400 to 599")


def check_name(value: object) -> str | None:
    """Return the option `name`: the name of a limit, or None if it is not set."""
    if value is None:
        return None
    # The name is a string of RFC 9651, section 3.3.3, in response headers.
    if isinstance(value, str) and value and value.isascii() and value.isprintable():
        return value
    raise InvalidOption("name", value, "a string of printable ASCII characters, not empty")


def key_to_text(value: object) -> str:
    """Convert the key that a function returned to a string.

    Raises `TypeError` for an object whose class defines no text for it.
    """
    if isinstance(value, str):
        return value
    kind = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        # The default text has the memory address of the object, which differs for each request.
        raise TypeError(f"a key must be a string or a number, not {value!r}")
    return str(value)


def to_reproducible_text(value: object) -> str:
    """Return a text for a value that is the same in all processes, for a function its full name."""
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return str(value)
