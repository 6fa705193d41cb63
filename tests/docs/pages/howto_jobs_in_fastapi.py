"""Run docs/howto/jobs-in-fastapi.md: a request queues a mail, and a worker sends it."""

import asyncio

import httpx

from tests.docs.page_session import Page

FRAGMENTS = ("store = Store.from_env()",)


async def check(page: Page) -> None:
    code = await page.run()
    transport = httpx.ASGITransport(code.app)
    async with (
        code.app.router.lifespan_context(code.app),
        httpx.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        response = await client.post("/send-email", json={"to": "ada@example.org", "text": "Hello"})
        assert response.status_code == 202
        path = f"/jobs/{response.json()['id']}"
        while (job := (await client.get(path)).json())["state"] != "completed":
            await asyncio.sleep(0.01)
        assert job["result"] == "5 characters to ada@example.org"
        assert (await client.get("/jobs/none")).status_code == 404
        events = (await client.get(f"{path}/events")).text
        assert "event: completed" in events
        queued = await client.post("/send-email", json={"to": "ada@example.org", "text": "Hi"})
        events = (await client.get(f"/jobs/{queued.json()['id']}/events")).text
        assert events.rstrip().split("event: ")[-1].startswith("completed")
        assert "event: missing" in (await client.get("/jobs/none/events")).text
    assert await asyncio.to_thread(code.view)
    await code.mail.aclose()
