"""A Ray cluster: connecting to it, and letting go of it. `sdrt serve` and `sdrt batch` share it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrt.common.control_groups import usable_cpus
from sdrt.common.version import __version__
from sdrt.errors import ProviderError, RequestError, SdrtError
from sdrt.serve.make import failure_of
from sdrt.serve.task import Failure

__all__ = ["LOCAL", "Cluster", "as_the_driver", "connect", "disconnect", "log_to", "told"]

LOCAL = "local"
"""The address of this machine as a cluster of its own."""
_LOCAL_STORE = 200 * 10**6
"""Bytes of shared memory for Ray on this machine. By itself it takes a third of the memory."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which cluster, and what workers take of it.

    Attributes:
        address: the cluster's address, "auto" for the one of this machine, or "local" for this machine alone.
        workers: how many workers there are at most.
        cpus, gpus: what each takes of a node, in CPUs and GPUs or parts of them.
        log: the file that gets what Ray's libraries print.
        folder: the folder that relative paths are in.
        version: the version of sdrt that the nodes must have.
    """

    address: str
    workers: int
    cpus: float
    gpus: float
    log: str
    folder: str = field(default_factory=os.getcwd)
    version: str = __version__


def log_to(name: str) -> None:
    """Let what Ray prints go to a file: its native code writes to the streams of the process."""
    with suppress(OSError), Path(name).open("wb") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)


def connect(cluster: Cluster) -> None:
    """Connect this process to the cluster.

    Raises:
        RequestError: no node has what a worker takes.
        Exception: Ray's own errors.
    """
    import logging

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    is_local = cluster.address == LOCAL
    if is_local:
        # Ray listens on all addresses of this machine, and runs what it is sent.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    ray.init(
        address=cluster.address,
        include_dashboard=False if is_local else None,
        object_store_memory=_LOCAL_STORE if is_local else None,
        num_cpus=_local_cpus(cluster) if is_local else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
    )
    _check_nodes(cluster, ray.nodes())


def disconnect() -> None:
    """Let go of the cluster, and end it if it is this machine alone."""
    if (ray := sys.modules.get("ray")) is not None:
        with suppress(Exception):  # it is gone already
            ray.shutdown()


def as_the_driver(cluster: Cluster) -> None:
    """On a node, check that it has the version of the process that drives the cluster, and enter its folder.

    Raises:
        ProviderError: it has another version.
    """
    if __version__ != cluster.version:
        raise ProviderError.advised(
            f"a node has sdrt {__version__}, and this machine {cluster.version}", "install the same version"
        )
    with suppress(OSError):
        os.chdir(cluster.folder)


def told(error: Exception, cluster: Cluster, remedy: str) -> Failure:
    """What to tell of an error that ends the work on a cluster."""
    if isinstance(error, SdrtError):
        return failure_of(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = f"Ray at {cluster.address} failed: {type(error).__name__}: {lines[0]}"
    return Failure(kind="SdrtError", message=f"{said}; {cluster.log} says more; {remedy}")


def _local_cpus(cluster: Cluster) -> int:
    """The CPUs that this machine offers: never fewer than the workers take, and one for Ray's own tasks."""
    return max(usable_cpus() or 1, int(-(-cluster.workers * cluster.cpus // 1)) + 1)


def _check_nodes(cluster: Cluster, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Check that a node has what a worker takes. Ray would wait for one that does."""
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in alive):
        has = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in alive)
        raise RequestError.expected(
            f"no node has {cluster.cpus:g} CPU and {cluster.gpus:g} GPU for a worker (there are {has})",
            "smaller --cpus-per-worker and --gpus-per-worker",
        )
