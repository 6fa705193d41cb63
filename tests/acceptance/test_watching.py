"""Following a job in another process than its worker."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

from tests.acceptance import app
from tests.acceptance.site import ROOT, Site
from tests.patience import DEADLINE_SECONDS

PROGRAM: Final = """
import sys
from hasten.jobs import Queue

queue = Queue("acceptance", sys.argv[1])
job = queue.sync.get(sys.argv[2])
try:
    for change in job.sync.watch():
        print(change.state, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
# The queue can still be used, and followed again.
print(next(job.sync.watch()).state, flush=True)
queue.sync.close()
"""


async def test_ctrl_c_ends_a_blocking_watch(site: Site) -> None:
    """At once, although the job does not change, and the program can continue."""
    job = await site.add(app.hold, gate=str(site.gate))
    await site.start_worker()
    await site.until_started(job)
    watcher = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, site.url, job.id],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "active\n"
        watcher.send_signal(signal.SIGINT)
        output, errors = watcher.communicate(timeout=DEADLINE_SECONDS)
    finally:
        watcher.kill()
    assert (output.splitlines(), errors) == (["interrupted", "active"], "")
    assert watcher.returncode == 0
    site.open_gate()
    await job.result(timeout=60)
