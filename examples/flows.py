"""Let jobs wait for other jobs, and collect jobs in a batch: `python examples/flows.py`.

A report is made of chapters, which are counted in parallel. The jobs are stored in memory, and are
lost when the program ends.
"""

import asyncio

from hasten.jobs import Context, Queue, Worker

reports = Queue("reports", "memory://")

CHAPTERS = ["once upon a time", "there was a queue", "the end"]


@reports.task
async def count_words(chapter: str) -> int:
    return len(chapter.split())


@reports.task
async def add_up(ctx: Context, title: str) -> str:
    return f"{title}: {sum(await ctx.children.results(count_words))} words"


@reports.task
async def split_and_count(ctx: Context, book: str) -> int:
    ctx.children.add(count_words.many(book.split(";")))
    await ctx.children.wait()  # ends this run; the job runs again when its children have ended
    return sum(await ctx.children.results(count_words))


async def main() -> None:
    async with reports, Worker(reports):
        job = await add_up.args("story").after(count_words.many(CHAPTERS)).enqueue()
        print(await job.result(timeout=10))

        print(await (await split_and_count.enqueue(";".join(CHAPTERS))).result(timeout=10))

        batch = await reports.batch("import")
        for chapter in CHAPTERS:
            await batch.add(count_words.args(chapter))
        await batch.close()
        print(await batch.ended(timeout=10))


if __name__ == "__main__":
    asyncio.run(main())
