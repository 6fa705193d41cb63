"""Run docs/howto/testing.md: the tests on that page pass."""

from tests.docs.page_session import Page

FRAGMENTS = ("import os",)


async def check(page: Page) -> None:
    code = await page.run()
    tests = [test for name, test in vars(code).items() if name.startswith("test_")]
    assert len(tests) == 5
    for test in tests:
        await test()
    await code.mail.aclose()
