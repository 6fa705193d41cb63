"""Run docs/howto/arguments.md: arguments that do not fit are refused at the call."""

from tests.docs.page_session import Page


async def check(page: Page) -> None:
    code = await page.run()
    assert code.shop.name == "shop"
    await code.shop.aclose()
