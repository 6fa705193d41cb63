"""Run docs/howto/retries.md: a handler postpones, succeeds and gives up."""

from hasten.errors import JobFailed
from tests.docs.page_session import Page

ANSWERS = {"ada": ["paid"], "busy": ["wait", "paid"], "eve": ["unknown"], "bob": ["blocked"]}


async def ask_the_bank(customer: str) -> str:
    answer = ANSWERS[customer].pop(0)
    if answer == "blocked":
        raise PermissionError("blocked")
    return answer


async def check(page: Page) -> None:
    code = await page.run()
    outcomes = {}
    async with code.mail, code.Worker(code.mail):
        for customer in ANSWERS:
            job = await code.charge.enqueue(customer)
            try:
                outcomes[customer] = await job.result(timeout=10)
            except JobFailed as error:
                outcomes[customer] = error.error
    assert outcomes == {
        "ada": "attempt 1",
        "busy": "attempt 1",
        "eve": "Unrecoverable: there is no such customer",
        "bob": "PermissionError: blocked",
    }
