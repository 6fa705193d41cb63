"""The tour: send real requests to the application, and print what came back."""

import httpx
from rich.table import Table

from examples.send_email.smtp import Mailbox
from examples.send_email.tour.blog import see_blog
from examples.send_email.tour.limits import see_limits
from examples.send_email.tour.mail import see_mail
from examples.send_email.tour.seeing import Row, console

__all__ = ["console", "tour"]


def tour(client: httpx.Client, mailbox: Mailbox) -> bool:
    """Run the tour. Return whether everything was as promised."""
    mail = see_mail(client, mailbox)
    blog = see_blog(client)
    limits = see_limits(client)
    show(mail, blog, limits)
    return all(as_promised is not False for *_, as_promised in (*mail, *blog, *limits))


def show(*sections: list[Row]) -> None:
    words = {True: "[green]yes[/]", False: "[red]NO[/]", None: ""}
    table = Table("", "result", "as promised", title="Results of the tour", title_justify="left")
    for rows in sections:
        for what, seen, as_promised in rows:
            table.add_row(what, seen, words[as_promised])
        table.add_section()
    console.print(table)
