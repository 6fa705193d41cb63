"""Connections to Redis, Valkey and compatible servers, without knowledge of jobs or limits.

A `server.Server` stands for a URL: one machine, a master found by Sentinel, or a cluster. It runs
commands and scripts within a time limit, from any event loop, and raises hasten's own errors. It
uses the official client library, `redis`.
"""

from hasten._extras import require

require("redis", extra="redis")  # before the modules here import it: raises `MissingExtra`
