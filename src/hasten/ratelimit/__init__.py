"""Limits on how much a client may ask for, fair and exact when many ask at once."""
