"""Connections to Redis, Valkey and compatible servers. Nothing here knows about jobs or limits.

`server.Server` is the entry point. Its URL names one server, a master found by Sentinel, or a
cluster. It runs commands and scripts from any event loop, applies the URL's time-out, and raises
hasten's errors instead of those of the client library, `redis`.
"""

from hasten._extras import require

require("redis", extra="redis")  # before the modules here import it: raises `MissingExtra`
