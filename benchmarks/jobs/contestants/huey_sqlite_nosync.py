"""huey with its SQLite storage, without flushing: its fastest setting, less durable than hasten."""

from __future__ import annotations

from benchmarks.jobs.contestants.huey_sqlite import HueySqlite


class HueySqliteNosync(HueySqlite):
    title = "huey, fsync=False"
    remark = "synchronous=OFF: a power cut may lose jobs and damage the file"
    fsync = False


CONTESTANT = HueySqliteNosync
