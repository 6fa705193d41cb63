"""Connections to Redis, Valkey and what else speaks their protocol; no word of jobs or limits.

A `server.Server` is a store by its URL, whether one machine, a master found by Sentinel, or a
cluster. It runs commands and scripts within a time limit, from any event loop, and says in our own
errors what went wrong. The client library below it is the official one, `redis`.
"""

from hasten._extras import require

require("redis", extra="redis")  # its absence is explained before the modules here import it
