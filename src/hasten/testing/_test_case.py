"""`JobsTestCase`: a `JobsTester` for each test of a `unittest.TestCase`."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

from hasten.testing._tester import JobsTester


class JobsTestCase(unittest.TestCase):
    """A test case whose tests have a `JobsTester` as `self.jobs`.

    It can be combined with other test cases, such as Django's, as the first base class:

        class SignUpTests(JobsTestCase, TestCase):
            def test_a_mail_is_sent(self) -> None:
                self.client.post("/sign-up", {"email": "ada@example.org"})
                self.jobs.assert_enqueued(send_welcome, to="ada@example.org")
                self.jobs.sync.run_until_idle()

    Async tests of `unittest.IsolatedAsyncioTestCase` and Django await `self.jobs.run_until_idle()`.
    A `setUp` of your own calls `super().setUp()` first.
    """

    jobs: JobsTester
    """The tester of the running test."""

    jobs_options: ClassVar[dict[str, Any]] = {}
    """The options of the `JobsTester`, such as `{"inline": True}`."""

    def setUp(self) -> None:
        """Begin to isolate the queues, until the test and its clean-up functions have ended."""
        super().setUp()
        self.jobs = self.enterContext(JobsTester(**self.jobs_options))
