"""Tests that are not async use `jobs.sync`, in pytest, unittest and Django."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path

import pytest

from hasten.errors import UsageError
from hasten.testing import JobsTestCase, JobsTester
from tests.kit import application as app

ROOT = Path(__file__).parents[2]


def test_jobs_run(jobs: JobsTester) -> None:
    app.order.sync.enqueue(7)
    assert [run.result for run in jobs.sync.run_until_idle()] == ["order 7", "sent to customer 7"]


def test_time_advances(jobs: JobsTester) -> None:
    app.send.using(delay=60).sync.enqueue("ada")
    (run,) = jobs.sync.advance(hours=1)
    assert (jobs.clock.now() - run.at).total_seconds() == 3540


def test_errors_are_raised(jobs: JobsTester) -> None:
    app.failures.append(ValueError("wrong address"))
    app.send_flaky.sync.enqueue("ada")
    with pytest.raises(ValueError, match="wrong address"):
        jobs.sync.run_until_idle()


def test_plain_handlers_run_in_the_thread_of_the_test(jobs: JobsTester) -> None:
    app.threads.clear()
    app.send_plain.sync.enqueue("ada")
    jobs.sync.run_until_idle()
    assert app.threads == [threading.current_thread()]


def test_they_may_make_blocking_calls_themselves(jobs: JobsTester) -> None:
    app.charge_in_thread.sync.enqueue("7")
    assert [run.task for run in jobs.sync.run_until_idle()] == ["charge_in_thread", "send"]


def test_crashes_are_tried(jobs: JobsTester) -> None:
    """The functions of the test run in its thread, too."""
    threads = []

    def reset() -> None:
        threads.append(threading.current_thread())
        app.gateway.charges.clear()

    report = jobs.sync.crash_everywhere(
        app.charge,
        {"order_id": "7"},
        snapshot=lambda: app.gateway.charges,
        reset=reset,
        raises=False,
    )
    assert len(report.differences) == len(report.points) == 2
    assert set(threads) == {threading.current_thread()}


async def test_a_running_event_loop_needs_await(jobs: JobsTester) -> None:
    with pytest.warns(RuntimeWarning, match=r"use 'await jobstester.run_until_idle"):
        jobs.sync.run_until_idle()


def run_case(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_a_test_case_isolates_each_test() -> None:
    class Case(JobsTestCase):
        def test_one(self) -> None:
            app.send.sync.enqueue("ada")
            assert self.jobs.assert_enqueued(app.send, to="ada").job_id == "1"
            assert len(self.jobs.sync.run_until_idle()) == 1

        test_two = test_one

    result = run_case(Case)
    assert (result.testsRun, result.failures, result.errors) == (2, [], [])


def test_a_test_case_may_set_options_and_be_async() -> None:
    class Case(JobsTestCase, unittest.IsolatedAsyncioTestCase):
        jobs_options = {"inline": True}  # noqa: RUF012

        async def test_inline(self) -> None:
            await app.send.enqueue("ada")
            assert len(self.jobs.runs) == 1
            await self.jobs.advance(hours=1)

    result = run_case(Case)
    assert (result.testsRun, result.failures, result.errors) == (1, [], [])


def test_a_failing_test_case_restores_the_stores() -> None:
    class Case(JobsTestCase):
        def test_failing(self) -> None:
            self.fail("as it should")

    assert len(run_case(Case).failures) == 1
    with JobsTester():
        pass


DJANGO = """
import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User
from django.test import TestCase
from django.test.utils import get_runner

from hasten.jobs import Queue
from hasten.testing import JobsTestCase

mail = Queue("kit-mail")


@mail.task
def welcome(user_id: int) -> str:
    user = User.objects.get(id=user_id)
    user.first_name = "welcomed"
    user.save()
    return user.username


class SignUpTests(JobsTestCase, TestCase):
    def test_handlers_see_the_transaction_of_the_test(self):
        user = User.objects.create(username="ada")
        welcome.sync.enqueue(user.id)
        (run,) = self.jobs.sync.run_until_idle()
        assert run.result == "ada"
        user.refresh_from_db()
        assert user.first_name == "welcomed"

    def test_inline(self):
        user = User.objects.create(username="bob")
        with self.jobs.inline():
            welcome.sync.enqueue(user.id)
        user.refresh_from_db()
        assert user.first_name == "welcomed"


runner = get_runner(settings)(verbosity=0)
suite = runner.test_loader.loadTestsFromTestCase(SignUpTests)
old = runner.setup_databases()
result = runner.run_suite(suite)
runner.teardown_databases(old)
assert result.testsRun == 2 and result.wasSuccessful()
"""


def test_django_test_cases(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(DJANGO, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hasten.db").exists()


def test_a_second_tester_in_a_test_case_is_an_error() -> None:
    class Case(JobsTestCase):
        def test_second(self) -> None:
            with pytest.raises(UsageError), JobsTester():
                pass

    assert run_case(Case).wasSuccessful()
