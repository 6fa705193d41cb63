"""Answer with the fields that were asked for, and with no other."""
