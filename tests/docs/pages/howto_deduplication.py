"""Run docs/howto/deduplication.md: duplicates are dropped, delayed and replaced."""

from tests.docs.page_session import Page


async def check(page: Page) -> None:
    code = await page.run()
    assert (code.first.is_duplicate, code.second.is_duplicate) == (False, True)
    assert code.second == code.first
    assert not code.other.is_duplicate
    assert [job.is_duplicate for job in (code.urgent, code.once_more, code.by_name)] == [
        False,
        False,
        True,
    ]
    assert code.freed
    async with code.mail, code.Worker(code.mail):
        assert await code.second.result(timeout=10) == "ada is up to date"
        assert await code.indexing.result(timeout=10) == 4
        assert await code.rendering.result(timeout=10) == "home v2"
        assert code.replaced == code.rendering
