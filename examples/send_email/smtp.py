"""A test SMTP server that is slow, like mail providers, and records the ids of messages."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesHeaderParser

from aiosmtpd.smtp import SMTP, Envelope, Session

SECONDS_PER_MAIL = 3


class Mailbox:
    """Accepts mails after some seconds, many at the same time, and records their ids.

    Mails to an address that begins with full@ are refused.
    """

    def __init__(self, seconds_per_mail: float = SECONDS_PER_MAIL) -> None:
        self._seconds_per_mail = seconds_per_mail
        self.message_ids: list[str] = []

    # aiosmtpd requires these names.
    async def handle_RCPT(  # noqa: N802
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],
    ) -> str:
        if address.startswith("full@"):
            return "552 Mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        await asyncio.sleep(self._seconds_per_mail)
        headers = BytesHeaderParser().parsebytes(envelope.original_content or b"")
        self.message_ids.append(headers["Message-ID"])
        return "250 Accepted"


@contextmanager
def smtp_server(mailbox: Mailbox) -> Iterator[int]:
    """Run the SMTP server in a thread on a free port while the context is open. Yield the port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: SMTP(mailbox, enable_SMTPUTF8=True), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()
