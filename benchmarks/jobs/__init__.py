"""Job queues, side by side. `contestants/` holds a file for each, `parts.py` what is measured."""
