"""A Ray cluster of several node processes on this machine: `python -m tests.batch.cluster`, driven by lines of stdin.

It prints the address, then answers each line: `add` starts a node, and `kill N` kills the processes of a node as a
power cut would, with 0 for the head. At the end of stdin it ends all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

import psutil


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
