"""Pages, cursors and fields side by side: requests, buffers, and whether all rows are seen."""
