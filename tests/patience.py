"""How long the tests wait for what must happen."""

from __future__ import annotations

from typing import Final

# No test waits that long unless something hangs: the machine may do other work at the same time.
DEADLINE_SECONDS: Final = 90.0
