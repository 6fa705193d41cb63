"""What comes before all tests."""

import pytest

# They assert, and are imported by tests of several folders: before all of them, so that what was
# compared is shown.
pytest.register_assert_rewrite("tests.http.client", "tests.http.codings", "tests.http.expect")
