"""No spelling of a path bypasses its limit in any framework."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from hasten.ratelimit import Limit
from tests.ratelimit.sites import FRAMEWORKS, Served

BEFORE: Final = (
    "/", "//", "///", "/./", "/x/../", "/%2e/", "/\\", "/ ", "/\t", "/\n/", "", "http://x/",
    "http://x//", "//x/", "x:/",
)  # fmt: skip
NAMES: Final = (
    "limited", "LIMITED", "Limited", "%6cimited", "limited;a=1", "limited%2f", "limited\0",
    "ｌimited", "limited ", "limited\\",
)  # fmt: skip
AFTER: Final = ("", "/", "//", "/.", "/..", "/../limited", "#", "?", "%00", "\n")


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_no_spelling_of_a_path_reaches_a_handler_without_its_limit(framework: str) -> None:
    """If the handler's own limit was reached, the limit of the path must apply, too."""
    site = Served(framework, limits=[Limit("1000000/m", path="/limited", name="path")])
    reached = 0
    paths = [*itertools.product(BEFORE, NAMES[:1], AFTER), *itertools.product("/", NAMES, AFTER)]
    for number, path in enumerate(map("".join, paths)):
        answer = await site.ask(path, peer=f"198.51.{number // 250}.{number % 250}")
        told = answer.get("ratelimit") or ""
        if '"2-in-1min"' in told:
            reached += 1
            assert '"path"' in told, path
    assert reached
    await site.close()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("method", ["POST", "post", "PoSt"])
async def test_methods_are_compared_as_frameworks_do(framework: str, method: str) -> None:
    """Servers pass methods as they were sent, and some frameworks convert them to upper case."""
    limits = [Limit("1000/m", path="/limited", methods=["POST"], name="path")]
    site = Served(framework, limits=limits)
    answer = await site.ask("/limited", method)
    told = answer.get("ratelimit") or ""
    assert '"2-in-1min"' not in told or '"path"' in told
    await site.close()
