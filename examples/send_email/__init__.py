"""A web application that sends mail in the background and answers in pages: ``make demo``."""
