"""The OpenAPI document of the demo is the one that was reviewed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from examples.send_email.app import app

REVIEWED: Final = Path(__file__).with_name("openapi.json")


def text() -> str:
    return json.dumps(app.openapi(), indent=2) + "\n"


def test_is_unchanged_since_the_review() -> None:
    written = REVIEWED.read_text(encoding="utf-8")
    assert json.loads(text()) == json.loads(written), (
        "review it, then run: python -m tests.docs.test_openapi"
    )
    assert text() == written, "the order has changed: run python -m tests.docs.test_openapi"


if __name__ == "__main__":
    REVIEWED.write_text(text(), encoding="utf-8")
