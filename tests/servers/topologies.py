"""Several servers that belong together: a cluster, or a master with a replica and Sentinels."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import redis

from tests.patience import DEADLINE_SECONDS
from tests.servers.redis import RedisServer, free_port

SERVICE: Final = "main"
SLOTS: Final = 16384


def until(condition: Callable[[], object]) -> None:
    """Wait for another process. Errors of a server that is not ready are ignored."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


class RedisCluster:
    """Three masters, each with a third of the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [
            RedisServer(
                folder / str(number), "--cluster-enabled", "yes",
                "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000",
            )
            for number in range(3)
        ]  # fmt: skip

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])
        return f"redis+cluster://{hosts}"

    def start(self) -> RedisCluster:
        share = -(-SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            node.start()
            with node.client() as client:
                slots = range(number * share, min(SLOTS, (number + 1) * share))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1])
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        until(lambda: all(self._is_whole(node) for node in self.nodes))
        return self

    def _is_whole(self, node: RedisServer) -> bool:
        facts = str(self.ask(node, "INFO")).split()
        return {"cluster_state:ok", f"cluster_known_nodes:{len(self.nodes)}"} <= set(facts)

    def ask(self, node: RedisServer, *command: Any) -> Any:
        with node.client(decode_responses=True) as client:
            return client.execute_command("CLUSTER", *command)

    def client(self) -> Any:
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port, protocol=2)

    def owner(self, slot: int) -> RedisServer:
        for first, last, (_, port, *_), *_ in self.ask(self.nodes[0], "SLOTS"):
            if int(first) <= slot <= int(last):
                return next(node for node in self.nodes if node.port == int(port))
        raise LookupError(slot)

    @contextlib.contextmanager
    def moving(self, slot: int) -> Iterator[None]:
        """Move a slot to another node: on its way within the block, and there after it."""
        source = self.owner(slot)
        target = next(node for node in self.nodes if node is not source)
        ids = {node: self.ask(node, "MYID") for node in (source, target)}
        self.ask(target, "SETSLOT", slot, "IMPORTING", ids[source])
        self.ask(source, "SETSLOT", slot, "MIGRATING", ids[target])
        yield
        while keys := self.ask(source, "GETKEYSINSLOT", slot, 100):
            with source.client() as client:
                client.execute_command(
                    "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys
                )
        for node in (target, source, *self.nodes):
            self.ask(node, "SETSLOT", slot, "NODE", ids[target])

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


@functools.cache
def shared_cluster() -> RedisCluster:
    """Return the cluster of all tests of this process, which use prefixes of their own."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    return RedisCluster(folder).start()


class SentinelPair:
    """A master, its replica, and three Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        self.master = RedisServer(folder / "one", "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(
            folder / "two", "--replicaof", f"127.0.0.1 {self.master.port}",
            "--repl-diskless-sync-delay", "0",
        )  # fmt: skip
        self.sentinels = [_Sentinel(folder / f"sentinel{n}", self.master.port) for n in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> SentinelPair:
        self.master.start()
        self.replica.start()
        until(lambda: self.state(self.replica)["master_link_status"] == "up")
        for sentinel in self.sentinels:
            sentinel.start()
        until(lambda: all(sentinel.knows_all for sentinel in self.sentinels))
        return self

    @staticmethod
    def state(server: RedisServer) -> dict[str, Any]:
        with server.client() as client:
            state: dict[str, Any] = client.info("replication")
            return state

    def fail_over(self) -> None:
        """Kill the master, and wait until the replica is the master."""
        self.master.kill()
        self.master, self.replica = self.replica, self.master
        until(lambda: self.state(self.master)["role"] == "master")

    def kill(self) -> None:
        for server in (*self.sentinels, self.master, self.replica):
            server.kill()


class _Sentinel(RedisServer):
    def __init__(self, folder: Path, master_port: int) -> None:
        super().__init__(folder, port=free_port())
        folder.mkdir(parents=True)
        (folder / "sentinel.conf").write_text(
            f"port {self.port}\n"
            "bind 127.0.0.1\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )

    def _command(self) -> list[str]:
        return [str(self.folder / "sentinel.conf"), "--sentinel"]

    @property
    def knows_all(self) -> bool:
        with self.client() as client:
            state = client.execute_command("SENTINEL", "MASTER", SERVICE)
        facts = (
            dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        )
        told = {_text(name): _text(value) for name, value in facts.items()}
        return told["num-other-sentinels"] == "2" and told["num-slaves"] == "1"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
