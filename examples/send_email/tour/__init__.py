"""The tour: sends requests to the demo application, and prints the results."""

import httpx
from rich.table import Table

from examples.send_email.smtp import Mailbox
from examples.send_email.tour.blog import try_blog
from examples.send_email.tour.limits import try_limits
from examples.send_email.tour.mail import try_mail
from examples.send_email.tour.operations import try_operations
from examples.send_email.tour.shared import Row, console

__all__ = ["console", "tour"]


def tour(client: httpx.Client, mailbox: Mailbox) -> bool:
    """Run the tour. Return whether all results were as expected."""
    mail = try_mail(client, mailbox)
    blog = try_blog(client)
    limits = try_limits(client)
    operations = try_operations(client)
    print_results(mail, blog, limits, operations)
    results = (*mail, *blog, *limits, *operations)
    return all(as_expected is not False for *_, as_expected in results)


def print_results(*sections: list[Row]) -> None:
    words = {True: "[green]yes[/]", False: "[red]NO[/]", None: ""}
    table = Table("", "result", "as expected", title="Results of the tour", title_justify="left")
    for rows in sections:
        for what, result, as_expected in rows:
            table.add_row(what, result, words[as_expected])
        table.add_section()
    console.print(table)
