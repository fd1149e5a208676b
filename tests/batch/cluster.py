"""A Ray cluster of several node processes on this machine: `python -m tests.batch.cluster`, driven by lines of stdin.

It prints the address, then answers each line: `add` starts a node, and `kill N` kills the processes of a node as a
power cut would, with 0 for the head. At the end of stdin it ends all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import psutil

MARK = "SDRT_TEST_RAY"
"""The variable by which a test finds what it started, among what other tests run."""


def variables() -> dict[str, str]:
    """No telemetry, a token that is not the user's, little patience with a head that is gone, and a mark."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "ab" * 32,
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        MARK: uuid.uuid4().hex,
    }


def nodes(mark: str) -> set[int]:
    """The processes with this mark that make this machine a node."""
    return {
        one.pid
        for one in psutil.process_iter(["name", "environ"])
        if one.info["name"] in ("raylet", "gcs_server") and (one.info["environ"] or {}).get(MARK) == mark
    }


def below(pid: int, title: str) -> list[psutil.Process]:
    """The processes below one whose titles begin so, as Ray names its workers."""
    found = []
    for one in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if one.cmdline()[:1] and one.cmdline()[0].startswith(title):
                found.append(one)
    return found


class Cluster:
    """A head and another node, in processes of their own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.batch.cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.say("add")

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def workers(self, title: str) -> list[psutil.Process]:
        """The processes that make images."""
        return below(self._process.pid, title)

    def end(self) -> None:
        left = psutil.Process(self._process.pid).children(recursive=True)
        self._process.communicate(timeout=60)
        for one in left:
            if one.is_running():
                one.kill()


def main() -> None:
    # How long the others wait for a head that is gone, in seconds.
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"})
    from ray.cluster_utils import Cluster

    common: dict[str, Any] = {
        "num_cpus": 1,
        "object_store_memory": 100 * 10**6,
        "include_dashboard": False,
        # Ray takes 127.0.0.1 for "this machine", and puts an address in its place that others reach.
        "node_ip_address": "127.0.0.2",
    }
    cluster = Cluster(initialize_head=True, head_node_args=common)
    nodes = [cluster.head_node]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "add":
            nodes.append(cluster.add_node(wait=True, **common))
        elif word == "kill":
            kill(nodes[int(rest[0])])
        print("done", flush=True)
    for node in nodes:
        kill(node)


def kill(node: Any) -> None:
    """Kill the processes of a node, and those that they started."""
    for processes in node.all_processes.values():
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(one.process.pid)
                for each in (*process.children(recursive=True), process):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    main()
