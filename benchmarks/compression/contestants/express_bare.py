"""Express without compression, the baseline of Express with compression."""

from __future__ import annotations

from benchmarks.compression.contestant import NodeContestant


class ExpressBare(NodeContestant):
    title = "bare Express"
    remark = "no compression"
    packages = ("node", "express")
    compresses = False


CONTESTANT = ExpressBare
