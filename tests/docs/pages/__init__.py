"""One module for each page whose blocks run in one session: what they need, and what they do.

The module `howto_retries` belongs to the page `docs/howto/retries.md`:

- its own names are there for the blocks, as if they stood above the first one;
- `check(page)` prepares what has to be awaited, runs the blocks by `await page.run()` and asserts
  what they did;
- `FRAGMENTS` has the first lines of the blocks that are only compiled, because they need a
  program of the reader's.
"""
