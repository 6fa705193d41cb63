"""What the demo says of itself in OpenAPI is what was looked at and found good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from examples.send_email.app import app

SEEN: Final = Path(__file__).with_name("openapi.json")


def text() -> str:
    return json.dumps(app.openapi(), indent=2) + "\n"


def test_is_as_it_was_looked_at() -> None:
    written = SEEN.read_text(encoding="utf-8")
    assert json.loads(text()) == json.loads(written), (
        "look, then: python -m tests.docs.test_openapi"
    )
    assert text() == written, "the order has changed: python -m tests.docs.test_openapi"


if __name__ == "__main__":
    SEEN.write_text(text(), encoding="utf-8")
