"""Express with its middleware `compression`, in Node."""

from __future__ import annotations

from benchmarks.compression.contestant import NodeContestant


class Express(NodeContestant):
    title = "Express, Node"
    remark = "defaults: brotli at quality 4, else gzip at level 6; events flushed, as documented"
    packages = ("node", "express", "compression")
    compresses = True


CONTESTANT = Express
