"""Run docs/howto/compression.md: what it says is compressed is compressed, and counted."""

import httpx

from tests.docs.page_session import Page

FRAGMENTS = (
    "from starlette.staticfiles import StaticFiles",
    "application = CompressionMiddleware(DecompressionMiddleware(get_asgi_application()))",
)


async def check(page: Page) -> None:
    code = await page.run()

    async def numbers() -> list[int]:
        return list(range(1000))

    code.app.add_api_route("/numbers", numbers)
    transport = httpx.ASGITransport(code.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
        response = await client.get("/numbers")
        assert response.headers["content-encoding"] in {"zstd", "br", "gzip"}
        assert "content-encoding" not in (await client.get("/token")).headers
        # The page adds several middlewares; an inner one has compressed the numbers.
        assert code.stats.skipped == {"already_encoded": 1, "opted_out": 1}
        assert (await client.get("/stats")).json()["compressed"] == {}
