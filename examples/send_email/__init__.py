"""A web application that sends mail in the background: ``make demo``."""
