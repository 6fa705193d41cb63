"""Tools for tests of applications that use hasten.

hasten is a plug-in of pytest: tests get a `JobsTester` from the fixture `hasten_jobs`, without an
import:

    async def test_signing_up_sends_a_mail(hasten_jobs: JobsTester) -> None:
        await sign_up("ada@example.org")
        hasten_jobs.assert_enqueued(send_welcome, to="ada@example.org")
        await hasten_jobs.run_until_idle()

`JobsTestCase` has the same for unittest and Django, and `JobsTester` itself is a context manager.
The marker `@pytest.mark.hasten_jobs(inline=True)` sets the options of the `JobsTester` for a test.

Without a `JobsTester`, a `ManualClock` controls the time of a store:
`Store("memory://", clock=ManualClock())`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hasten.testing._crash_report import Compared, CrashDifference, CrashReport
    from hasten.testing._enqueued import AnyTask
    from hasten.testing._manual_clock import ManualClock
    from hasten.testing._records import EnqueuedJob, JobRun, RunOutcome
    from hasten.testing._test_case import JobsTestCase
    from hasten.testing._tester import JobsTester, SyncJobsTester

__all__ = [
    "AnyTask",
    "Compared",
    "CrashDifference",
    "CrashReport",
    "EnqueuedJob",
    "JobRun",
    "JobsTestCase",
    "JobsTester",
    "ManualClock",
    "RunOutcome",
    "SyncJobsTester",
]

_MODULES = {
    "AnyTask": "_enqueued",
    "Compared": "_crash_report",
    "CrashDifference": "_crash_report",
    "CrashReport": "_crash_report",
    "EnqueuedJob": "_records",
    "JobRun": "_records",
    "JobsTestCase": "_test_case",
    "JobsTester": "_tester",
    "ManualClock": "_manual_clock",
    "RunOutcome": "_records",
    "SyncJobsTester": "_tester",
}


def __getattr__(name: str) -> object:
    # Imported late: tests of limits use a `ManualClock` and no jobs.
    if name not in _MODULES:
        raise AttributeError(f"module 'hasten.testing' has no attribute {name!r}")
    module = __import__(f"hasten.testing.{_MODULES[name]}", fromlist=[name])
    found: object = getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


del TYPE_CHECKING
