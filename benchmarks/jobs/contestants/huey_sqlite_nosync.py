"""huey with its SQLite storage and fsync=False: faster, but less durable than hasten."""

from __future__ import annotations

from benchmarks.jobs.contestants.huey_sqlite import HueySqlite


class HueySqliteNosync(HueySqlite):
    title = "huey, fsync=False"
    remark = "synchronous=OFF: a power cut may lose jobs and damage the file"
    fsync = False


CONTESTANT = HueySqliteNosync
