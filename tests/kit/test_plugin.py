"""The plug-in of pytest, in projects that have hasten installed and nothing configured."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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


# pytest-asyncio warns in each project that does not set this option.
SETTINGS = """
[pytest]
addopts = --strict-markers
filterwarnings =
    error
    ignore:.*asyncio_default_fixture_loop_scope
"""


class Project:
    """A folder with an application and its tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # What an installation of hasten writes.
        entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        plugins = entry_points["project"]["entry-points"]["pytest11"]
        self.installed = folder / "installed"
        metadata = self.installed / "hasten_installed-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Name: hasten-installed\nVersion: 1\n", encoding="utf-8")
        lines = [f"{name} = {module}" for name, module in plugins.items()]
        text = "\n".join(["[pytest11]", *lines, ""])
        (metadata / "entry_points.txt").write_text(text, encoding="utf-8")
        self.write("application.py", APPLICATION)
        self.write("pytest.ini", SETTINGS)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        paths = [
            str(self.folder),
            str(self.installed),
            *filter(None, [os.environ.get("PYTHONPATH")]),
        ]
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:schemathesis",
                "-p",
                "no:cacheprovider",
                *options,
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def expect(self, *options: str, **counts: int) -> str:
        """Run the tests, and return the output. counts are the expected numbers of outcomes."""
        done = self.run(*options)
        for outcome, count in counts.items():
            assert f"{count} {outcome}" in done.stdout, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


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
    assert "@pytest.mark.hasten_jobs(inline=False" in project.run("--markers").stdout
    assert "hasten_jobs" in project.run("--fixtures").stdout


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
