"""The names of keys and connections in BullMQ's layout: "prefix:queue:…"."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from hasten.errors import InvalidOption
from hasten.jobs._options import MAX_NAME
from hasten.jobs._states import State

DEFAULT_PREFIX: Final = "bull"
MAX_CACHED: Final = 1_000  # queues

# The keys that hold the ids of the jobs in a state.
STATE_KEYS: Final = {state: state.value for state in State} | {State.WAITING: "wait"}


class QueueKeys:
    """The keys of the queues with one prefix.

    On a cluster all keys of a queue must be in one slot. A prefix with a hash tag, "{shop}", does
    that for all of its queues. Without one, the name of the queue becomes the hash tag, and BullMQ
    must use the same name: new Queue("{mail}").
    """

    def __init__(self, prefix: str, *, tagged: bool) -> None:
        if not prefix or not prefix.isprintable() or " " in prefix:
            raise InvalidOption("prefix", prefix, "a string without spaces, such as 'bull'")
        self.prefix = prefix
        self._tagged = tagged and not _has_tag(prefix)
        self._bases: dict[str, str] = {}

    def base(self, queue: str) -> str:
        """Return the prefix of all keys of a queue. The key of a job is this and its id."""
        base = self._bases.get(queue)
        if base is None:
            if not queue or ":" in queue:
                raise InvalidOption("queue", queue, "a name without ':', which separates keys")
            if self._tagged and queue.startswith("}"):
                expected = "another first character: such a name cannot be the hash tag of a key"
                raise InvalidOption("queue", queue, expected)
            base = f"{self.prefix}:{self.wire_name(queue)}:"
            # Other programs may use longer names.
            if len(queue) <= MAX_NAME:
                if len(self._bases) >= MAX_CACHED:
                    self._bases.clear()
                self._bases[queue] = base
        return base

    def wire_name(self, queue: str) -> str:
        """Return the name of the queue in BullMQ."""
        return f"{{{queue}}}" if self._tagged else queue

    def queue_of(self, meta_key: str) -> str | None:
        """Return the queue of a `meta` key; None if it is another key, or has another prefix."""
        name = meta_key.removeprefix(f"{self.prefix}:").removesuffix(":meta")
        if not name or ":" in name or meta_key != f"{self.prefix}:{name}:meta":
            return None
        if not self._tagged:
            return name
        return name[1:-1] if name[0] == "{" and name[-1] == "}" else None

    def worker_connection(self, queue: str, worker: str) -> str:
        """Return the name of a worker's blocking connection; BullMQ's getWorkers finds it."""
        name = "".join(char if "!" <= char <= "~" else "-" for char in worker)
        return f"{self._connection(queue)}:w:{name}" if name else self._connection(queue)

    def reader_connection(self, queue: str) -> str:
        """Return the name of a connection that reads events."""
        return f"{self._connection(queue)}:qe"

    def _connection(self, queue: str) -> str:
        return f"{self.prefix}:{b64encode(self.wire_name(queue).encode()).decode()}"


def _has_tag(prefix: str) -> bool:
    """Return whether a prefix has a hash tag: a part in braces that is not empty."""
    return prefix.partition("{")[2].find("}") > 0
