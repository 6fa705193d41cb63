"""Run docs/howto/operate.md: list a worker, and ask why jobs do not run."""

import contextlib
import io
from typing import Any

import httpx
from prometheus_client import REGISTRY

from tests.docs.page_session import Page


async def check(page: Page) -> None:
    code = await page.run()
    async with code.mail:
        job = await code.send.enqueue("ada@example.org")
        assert await code.explain(job.id) == "start a worker"
        async with code.Worker(code.mail, name="w1", concurrency=7) as worker:
            await job.result(timeout=10)
            assert "has completed at" in await code.explain(job.id)
            assert worker.info()[0].name == "w1"
            while not await code.mail.workers():
                pass
            with contextlib.redirect_stdout(io.StringIO()) as out:
                await code.show_workers()
        assert out.getvalue().startswith("w1 on ")
        assert out.getvalue().endswith(": 0 of 7 slots used\n")
    await check_metrics(code)


async def check_metrics(code: Any) -> None:
    """The application serves its metrics and the health of its worker."""
    transport = httpx.ASGITransport(code.app)
    async with (
        code.app.router.lifespan_context(code.app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        text = (await client.get("/metrics/")).text
        assert 'hasten_jobs{queue="mail",state="completed"} 1.0' in text
        assert "hasten_compressed_responses_total" in text
        assert (await client.get("/health/livez")).json() == {"status": "alive"}
        scale = (await client.get("/health/scale?queue=mail")).json()
        assert (scale["backlog"], scale["wait_seconds"]) == (0, 0)
    REGISTRY.unregister(code.metrics)
