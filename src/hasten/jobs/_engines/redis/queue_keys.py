"""The names of Redis keys and connections, as BullMQ builds them: "prefix:queue:…"."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from hasten.errors import InvalidOption
from hasten.jobs._options import MAX_NAME
from hasten.jobs._states import State

DEFAULT_PREFIX: Final = "bull"
MAX_CACHED: Final = 1_000  # the number of queues whose key prefix is cached

# By state: the name of the key that holds the ids of the jobs in this state.
STATE_KEYS: Final = {state: state.value for state in State} | {State.WAITING: "wait"}


class QueueKeys:
    """Builds the names of the keys of all queues that share a prefix, such as "bull".

    tagged: the server is a cluster, so all keys of a queue must be in the same hash slot. That is
    the case if the prefix has a hash tag, as in "{shop}". Otherwise the name of the queue becomes
    the hash tag, and a BullMQ program must use that name, too: new Queue("{mail}").
    """

    def __init__(self, prefix: str, *, tagged: bool) -> None:
        if not prefix or not prefix.isprintable() or " " in prefix:
            raise InvalidOption(
                "prefix", prefix, "a printable string without spaces, such as 'bull'"
            )
        self.prefix = prefix
        self._tagged = tagged and not _has_hash_tag(prefix)
        self._cached_prefixes: dict[str, str] = {}

    @property
    def has_slot_per_queue(self) -> bool:
        """Whether a cluster stores different queues in different hash slots."""
        return self._tagged

    def queue_prefix(self, queue: str) -> str:
        """Return the beginning of all keys of a queue: "bull:mail:".

        A job's key is this prefix followed by its id. Raises `InvalidOption` for an invalid name.
        """
        key_prefix = self._cached_prefixes.get(queue)
        if key_prefix is None:
            if not queue or ":" in queue:
                raise InvalidOption(
                    "queue",
                    queue,
                    "a name without ':', because ':' separates the parts of a Redis key",
                )
            if self._tagged and queue.startswith("}"):
                expected = (
                    "a name that does not start with '}': Redis Cluster needs a valid hash tag"
                )
                raise InvalidOption("queue", queue, expected)
            key_prefix = f"{self.prefix}:{self.bullmq_name(queue)}:"
            # The name may come from another program, and be of any length.
            if len(queue) <= MAX_NAME:
                if len(self._cached_prefixes) >= MAX_CACHED:
                    self._cached_prefixes.clear()
                self._cached_prefixes[queue] = key_prefix
        return key_prefix

    def bullmq_name(self, queue: str) -> str:
        """Return the name by which a BullMQ program must open the queue."""
        return f"{{{queue}}}" if self._tagged else queue

    def queue_of_meta_key(self, meta_key: str) -> str | None:
        """Return the name of the queue whose settings are in this key, such as "bull:mail:meta".

        Returns None if this is not the meta key of a queue with this prefix.
        """
        name = meta_key.removeprefix(f"{self.prefix}:").removesuffix(":meta")
        if not name or ":" in name or meta_key != f"{self.prefix}:{name}:meta":
            return None
        if not self._tagged:
            return name
        return name[1:-1] if name[0] == "{" and name[-1] == "}" else None

    def worker_connection_name(self, queue: str, worker_name: str) -> str:
        """Return the name of a worker's blocking connection, as BullMQ's getWorkers expects it."""
        prefix = self._connection_name_prefix(queue)
        name = "".join(char if "!" <= char <= "~" else "-" for char in worker_name)
        return f"{prefix}:w:{name}" if name else prefix

    def find_worker_connection_names(self, queue: str, client_list: str) -> list[str]:
        """Return the names of the workers' connections in the reply of CLIENT LIST."""
        own = self._connection_name_prefix(queue)
        names = (
            part.removeprefix("name=")
            for line in client_list.splitlines()
            for part in line.split(" ")
            if part.startswith("name=")
        )
        return [name for name in names if name == own or name.startswith(f"{own}:w:")]

    def event_reader_connection_name(self, queue: str) -> str:
        """Return the name of a connection that reads events, like that of BullMQ's QueueEvents."""
        return f"{self._connection_name_prefix(queue)}:qe"

    def _connection_name_prefix(self, queue: str) -> str:
        """Return the beginning of the names of all connections of a queue."""
        return f"{self.prefix}:{b64encode(self.bullmq_name(queue).encode()).decode()}"


def _has_hash_tag(prefix: str) -> bool:
    """Return whether a prefix has a Redis Cluster hash tag: a non-empty part in braces."""
    return prefix.partition("{")[2].find("}") > 0
