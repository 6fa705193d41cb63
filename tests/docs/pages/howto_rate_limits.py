"""Run docs/howto/rate-limits.md: the limits of its routes hold."""

import httpx

from hasten.ratelimit import RateLimitMiddleware
from tests.docs.page_session import Page

FRAGMENTS = ("from hasten.ratelimit import current_limit",)


async def check(page: Page) -> None:
    code = await page.run()
    transport = httpx.ASGITransport(code.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
        responses = [await client.get("/export") for _ in range(2)]
        assert [response.status_code for response in responses] == [200, 429]
        assert responses[1].headers["retry-after"] == "60"
        openapi = (await client.get("/openapi.json")).json()
        assert openapi["paths"]["/report"]["get"]["responses"]["429"]
    limits = [code.by_plan, code.tokens, code.at_once, *code.LOGIN]
    RateLimitMiddleware(code.app, limits=limits)
    await code.provider.aclose()
