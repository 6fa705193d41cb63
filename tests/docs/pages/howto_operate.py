"""Run docs/howto/operate.md: list a worker, and ask why jobs do not run."""

import contextlib
import io

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
