"""Each test of a behaviour fails with at least one wrong middleware."""

from __future__ import annotations

import importlib

import pytest

from tests.http import client
from tests.http.site import BEHAVIOURS, Behaviour, Site
from tests.http.wrong import WRONG

MODULES = (
    "asgi", "breach", "decompression", "eligibility", "metadata", "negotiation", "small_streams",
    "streaming",
)  # fmt: skip
for module in MODULES:
    importlib.import_module(f"tests.http.test_{module}")


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=lambda behaviour: behaviour.name)
async def test_bad_middleware_fails(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.Patience, "seconds", 0.25)
    host, coding = next(behaviour.cases())
    for middleware in WRONG[behaviour.subject]:
        try:
            await behaviour.check(Site(host, middleware, coding))
        except (AssertionError, pytest.fail.Exception):
            return
        except Exception:  # noqa: BLE001 - broken in another way than was asked about
            continue
    pytest.fail("all of them passed")
