"""The plug-in of pytest, in projects that have hasten installed and nothing configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.projects import Project

APPLICATION = """
from hasten.jobs import Queue
from hasten.ratelimit import Limiter

mail = Queue("mail", "redis://localhost:1/0")  # no server is there
logins = Limiter("1/h", name="logins")
sent = []


@mail.task(attempts=2, backoff=60)
async def send(to: str) -> str:
    if to == "nobody":
        raise LookupError(f"no address: {to}")
    sent.append(to)
    return to
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("application.py", APPLICATION)
    return project


ISOLATED = """
    import pytest
    from application import logins, mail, send

    {mark}
    @pytest.mark.parametrize("number", range(4))
    async def test_sees_its_own_jobs_only(hasten_jobs, number):
        assert await logins.hit("ada")
        assert hasten_jobs.enqueued() == []
        job = await send.enqueue("ada")
        assert job.id == "1"
        assert hasten_jobs.assert_enqueued(send, to="ada").job_id == "1"
        if number == 1:
            pytest.fail("as it should")
        assert [run.result for run in await hasten_jobs.run_until_idle()] == ["ada"]
"""


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", ["-o", "asyncio_mode=auto"]),
        ("@pytest.mark.asyncio", []),
        ("@pytest.mark.asyncio(loop_scope='session')", []),
        ("@pytest.mark.anyio", ["-p", "no:asyncio"]),
        ("", ["-o", "asyncio_mode=auto", "-p", "xdist", "-n", "2"]),
    ],
    ids=["asyncio-auto", "asyncio-strict", "one-loop-for-all", "anyio", "xdist"],
)
def test_two_tests_never_see_each_others_jobs(
    project: Project, mark: str, options: list[str]
) -> None:
    project.write("test_application.py", ISOLATED.replace("{mark}", mark))
    project.write(
        "conftest.py",
        "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n",
    )
    project.expect(*options, passed=3, failed=1)


def test_tests_that_are_not_async(project: Project) -> None:
    project.write(
        "test_application.py",
        """
        from application import send, sent


        def test_one(hasten_jobs):
            send.sync.enqueue("ada")
            hasten_jobs.sync.run_until_idle()
            assert sent.pop() == "ada"


        test_two = test_one
        """,
    )
    project.expect("-p", "no:asyncio", "-p", "no:anyio", passed=2)


def test_trio_is_not_supported(project: Project) -> None:
    project.write(
        "test_application.py",
        """
        import pytest


        @pytest.mark.anyio
        async def test_jobs(hasten_jobs):
            await hasten_jobs.advance(hours=1)


        @pytest.fixture
        def anyio_backend():
            return "trio"
        """,
    )
    out = project.expect("-p", "no:asyncio", failed=1)
    assert "or call jobs.sync.advance in a thread" in out


def test_the_marker_sets_options(project: Project) -> None:
    project.write(
        "test_application.py",
        """
        from datetime import UTC, datetime

        import pytest
        from application import send

        pytestmark = pytest.mark.hasten_jobs(start=datetime(2031, 1, 1, tzinfo=UTC))


        @pytest.mark.hasten_jobs(inline=True)
        def test_inline(hasten_jobs):
            send.sync.enqueue("ada")
            assert len(hasten_jobs.runs) == 1
            assert hasten_jobs.clock.now().year == 2031


        @pytest.mark.hasten_jobs(in_line=True)
        def test_wrong(hasten_jobs):
            pass
        """,
    )
    out = project.expect(passed=1, error=1)
    assert "unexpected keyword argument 'in_line'" in out
    assert "@pytest.mark.hasten_jobs(inline=False" in project.run("--markers")
    assert "hasten_jobs" in project.run("--fixtures")


def test_a_failure_shows_the_code_of_the_handler(project: Project) -> None:
    project.write(
        "test_application.py",
        """
        from application import send


        def test_failing(hasten_jobs):
            send.sync.enqueue("nobody")
            hasten_jobs.sync.run_until_idle()


        async def test_failing_inline(hasten_jobs):
            with hasten_jobs.inline():
                await send.enqueue("nobody")


        async def test_missing(hasten_jobs):
            await send.enqueue("ada")
            hasten_jobs.assert_enqueued(send, to="bob")
        """,
    )
    out = project.expect("-o", "asyncio_mode=auto", failed=3)
    assert out.count('>           raise LookupError(f"no address: {to}")') == 2
    assert "E           LookupError: no address: nobody" in out
    assert "application.py:13: LookupError" in out
    assert "E       AssertionError: send(to='bob') was not enqueued. Enqueued instead:" in out
    assert "send(to='ada') in queue mail" in out
    hidden = ("_job_driver.py", "_tester.py", "_enqueued.py", "_portal.py", "_caller_thread.py")
    assert [name for name in hidden if f"{name}:" in out] == []


def test_it_costs_nothing_without_the_fixture(project: Project) -> None:
    project.write(
        "test_other.py",
        """
        import sys


        def test_other():
            loaded = {name for name in sys.modules if name.startswith("hasten")}
            assert loaded == {"hasten", "hasten._pytest_plugin"}
        """,
    )
    project.expect(passed=1)


def test_it_can_be_turned_off(project: Project) -> None:
    project.write("test_other.py", "def test_other(hasten_jobs):\n    pass\n")
    out = project.expect("-p", "no:hasten", error=1)
    assert "fixture 'hasten_jobs' not found" in out
