"""Workers of a Django project, by `hasten` and by `python manage.py hasten`."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from hasten.jobs import Queue
from tests.acceptance.commands import Command, run
from tests.patience import DEADLINE_SECONDS

# The applications are in a folder that only manage.py knows; many projects are laid out so. LOGGING
# disables all loggers that it does not name: that is the default of dictConfig.
FILES: Final = {
    "manage.py": """
import os, sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    sys.path.append(str(Path(__file__).parent / "apps"))
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
""",
    "project/__init__.py": "",
    "project/settings.py": """
from pathlib import Path
SECRET_KEY = "not secret"
INSTALLED_APPS = ["shop", "hasten.django"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).parent.parent / "shop.db",
        "OPTIONS": {"timeout": 20},
    }
}
USE_TZ = True
LOGGING = {"version": 1}
""",
    "project/broken.py": "raise LookupError('no secret key')",
    "apps/shop/__init__.py": "",
    "apps/shop/models.py": """
from django.db import models

class Mail(models.Model):
    to = models.TextField()
""",
    "apps/shop/tasks.py": """
from django.db import connection
from hasten.jobs import Queue
from shop.models import Mail

mail = Queue("mail")

def send(to: str) -> tuple[bool, int]:
    was_open = connection.connection is not None
    Mail.objects.create(to=to)
    return was_open, Mail.objects.count()

mail.task(name="thread")(send)

@mail.task(run_in="process")
def process(to: str) -> tuple[bool, int]:
    return send(to)
""",
}

MANAGE: Final = (sys.executable, "manage.py", "hasten")
SERVING: Final = r"worker \S+ serves mail"
ENVIRONMENT: Final = {"DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONPATH": "apps"}


class Project:
    """A Django project in a folder, with a table, and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text, encoding="utf-8")
        with closing(sqlite3.connect(folder / "shop.db")) as database:
            database.execute('CREATE TABLE shop_mail (id INTEGER PRIMARY KEY, "to" TEXT)')
        self.mail = Queue("mail", f"sqlite:///{folder}/hasten.db")
        self._workers: list[Command] = []

    async def serve(self, worker: Command) -> Command:
        """Wait until a worker and all its processes serve."""
        self._workers.append(worker)
        processes = 2 if "--processes" in worker.process.args else 1  # type: ignore[operator]
        await worker.until_logged(SERVING, times=processes)
        return worker

    async def result(self, task: str) -> list[object]:
        job = await self.mail.add(task, {"to": "ada"})
        found: list[object] = await job.result(timeout=DEADLINE_SECONDS)
        return found

    async def close(self) -> None:
        for worker in self._workers:
            worker.end()
        await self.mail.aclose()


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    project = Project(tmp_path)
    yield project
    await project.close()


class TestTheCommandHasten:
    @pytest.mark.parametrize("task", ["thread", "process"])
    async def test_sets_django_up_if_settings_are_named(self, project: Project, task: str) -> None:
        """Connections are closed after each job, as after each request."""
        command = ("worker", "shop.tasks:mail", "--concurrency", "1")
        await project.serve(Command(project.folder, *command, **ENVIRONMENT))
        assert await project.result(task) == [False, 1]
        assert await project.result(task) == [False, 2]

    async def test_does_so_in_each_of_several_processes(self, project: Project) -> None:
        command = ("worker", "shop.tasks:mail", "--processes", "2")
        await project.serve(Command(project.folder, *command, **ENVIRONMENT))
        assert await project.result("thread") == [False, 1]
        assert await project.result("process") == [False, 2]

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ("project.nope", "no module named 'project.nope' in "),
            ("project.broken", "module 'project.broken' could not be imported:\n\nTraceback"),
        ],
    )
    def test_reports_wrong_settings(self, tmp_path: Path, settings: str, said: str) -> None:
        Project(tmp_path)
        variables = {**ENVIRONMENT, "DJANGO_SETTINGS_MODULE": settings}
        done = run(tmp_path, "jobs", "counts", "shop.tasks", **variables)
        assert done.returncode == 1
        assert done.stderr.startswith(f"hasten: DJANGO_SETTINGS_MODULE={settings}: {said}")
        assert "importlib" not in done.stderr

    def test_names_the_application_that_cannot_be_imported(self, tmp_path: Path) -> None:
        Project(tmp_path)
        (tmp_path / "apps/shop/models.py").write_text("import nothing_like_this", encoding="utf-8")
        done = run(tmp_path, "jobs", "counts", "shop.tasks", **ENVIRONMENT)
        assert done.returncode == 1
        assert done.stderr.startswith(
            "hasten: DJANGO_SETTINGS_MODULE=project.settings: Django could not be set up:\n\n"
        )
        assert done.stderr.endswith("No module named 'nothing_like_this'\n")


class TestTheManagementCommand:
    async def test_runs_workers(self, project: Project) -> None:
        """Processes are started by manage.py as well, because it may change the import path."""
        command = ("worker", "shop.tasks:mail", "--processes", "2")
        worker = await project.serve(Command(project.folder, *command, program=MANAGE))
        assert await project.result("thread") == [False, 1]
        assert await project.result("process") == [False, 2]
        worker.process.terminate()
        assert await worker.ended() == 0

    async def test_shows_jobs_with_the_settings_that_are_named(self, project: Project) -> None:
        """The options of Django do not confuse the command."""
        await project.mail.add("thread", {"to": "ada"})
        settings = (project.folder / "project/settings.py").read_text(encoding="utf-8")
        (project.folder / "other.py").write_text(settings, encoding="utf-8")
        options = ("--settings", "other", "--pythonpath=apps")
        done = run(
            project.folder, "hasten", "jobs", "counts", "shop.tasks", *options,
            program=[sys.executable, "-m", "django"],
        )  # fmt: skip
        assert done.stdout.startswith("mail\twaiting\t1\n")
        assert done.returncode == 0

    def test_messages_use_the_name_of_the_command(self, tmp_path: Path) -> None:
        Project(tmp_path)
        shown = run(tmp_path, "worker", "--help", program=MANAGE)
        assert shown.stdout.startswith("Usage: manage.py hasten worker [OPTIONS]")
        refused = run(tmp_path, "worker", "nope", program=MANAGE)
        assert refused.returncode == 1
        assert refused.stderr.startswith("manage.py hasten: no module named 'nope' in ")
