"""How long the tests wait for what must happen."""

from __future__ import annotations

from typing import Final

# No test waits that long unless something hangs, because the machine may be busy.
DEADLINE_SECONDS: Final = 90.0
