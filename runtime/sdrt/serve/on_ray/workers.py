"""The server's side of a Ray cluster: the process that drives it, and a worker for each run that may be on it."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdrt.serve.link import Link
from sdrt.serve.messages import Messages, pair
from sdrt.serve.on_ray.driver import Connected, Ended, Running, main
from sdrt.serve.on_ray.replica import Answered, RaySetup
from sdrt.serve.task import Failure, ImageTask
from sdrt.serve.worker_process import Cancel, Cancelled, Done, Failed, Lost, Ready, Run, Stepped
from sdrt.serve.workers import Heard

__all__ = ["RayWorkers", "new_log"]

_CONTEXT = multiprocessing.get_context("spawn")
_GRACE = 15.0
"""Seconds that Ray gets to end."""
_PATIENCE = 120.0
"""Seconds in which a cluster should answer. Ray itself goes on trying."""


def new_log() -> str:
    """An empty file for what Ray prints."""
    with tempfile.NamedTemporaryFile(prefix="sdrt-ray-", suffix=".log", delete=False) as file:
        return file.name


class RayWorkers:
    """Workers on a cluster: each sends one run at a time, and Ray chooses the replica. Entering starts the driver.

    Args:
        setup: which cluster, and what its replicas need to know.
    """

    def __init__(self, setup: RaySetup) -> None:
        self._setup = setup
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ready: Ready | None = None
        self._workers: dict[int, RayWorker] = {}
        self._runs: dict[int, RayWorker] = {}
        self._numbers = itertools.count(1)
        # The models of each replica that answered. The one that answered last is at the end.
        self._models: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._replicas = 0
        self._is_lost = self._names_log = False

    def __enter__(self) -> RayWorkers:
        self._socket, theirs = pair()
        with theirs:
            # Not a daemon: Ray's own processes would outlive a daemon that is killed.
            self._process = _CONTEXT.Process(
                target=main, args=(Messages(theirs), self._setup), name="sdrt-ray"
            )
            self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # The driver ends when nobody is at the other end.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._process.join(_GRACE)
        finally:
            self._process.kill()
            self._process.join()
        if not self._names_log:
            Path(self._setup.cluster.log).unlink(missing_ok=True)

    @property
    def places(self) -> int:
        """See `Workers`."""
        return self._setup.cluster.workers

    @property
    def running(self) -> Sequence[tuple[str, ...]]:
        """See `Workers`. The models are those after a replica's last run."""
        known = list(self._models.values())[-self._replicas :] if self._replicas else []
        return [*known, *[()] * (self._replicas - len(known))]

    def start(self, place: int, heard: Heard) -> RayWorker:
        """See `Workers`."""
        if self._link is None:
            self._link = Link(self._socket, self._process, self._heard)
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._give_up)
        worker = self._workers[place] = RayWorker(self, heard)
        if self._ready is not None:
            asyncio.get_running_loop().call_soon(worker.tell, self._ready)
        return worker

    def begin(self, worker: RayWorker, tasks: Sequence[ImageTask]) -> int:
        """Send a run of a worker, and return its number."""
        number = next(self._numbers)
        self._runs[number] = worker
        self.send(Run(number, tasks))
        return number

    def send(self, message: Any) -> None:
        """Send a message to the driver."""
        assert self._link is not None
        self._link.send(message)

    def _heard(self, message: Any) -> None:
        if message is None:
            self._lose(self._gone())
        elif isinstance(message, Connected):
            self._stop_timer()
        elif isinstance(message, Ready):
            self._is_up(message)
        elif isinstance(message, Running):
            self._replicas = message.replicas
        elif isinstance(message, Lost):
            self._lose(message.failure)
        elif isinstance(message, Answered):
            self._answered(message)
        else:
            self._of_run(message)

    def _is_up(self, ready: Ready) -> None:
        self._ready, self._replicas = ready, 1
        self._models["the first"] = ready.open_models
        self._tell_all(ready)

    def _answered(self, answered: Answered) -> None:
        self._models.pop("the first", None)
        self._models[answered.replica] = answered.message.open_models
        self._models.move_to_end(answered.replica)
        while len(self._models) > self.places:
            self._models.popitem(last=False)
        self._of_run(answered.message)

    def _of_run(self, message: Stepped | Done | Failed | Cancelled | Ended) -> None:
        """Pass on what is said of a run."""
        if (worker := self._runs.get(message.number)) is None:
            return
        if not isinstance(message, Stepped):
            del self._runs[message.number]
        if isinstance(message, Ended):
            worker.end = message.reason
            worker.tell(None)
        else:
            worker.tell(message)

    def _tell_all(self, message: Lost | Ready) -> None:
        self._stop_timer()
        for worker in list(self._workers.values()):
            worker.tell(message)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        address, log = self._setup.cluster.address, self._setup.cluster.log
        said = f"the cluster {address} does not answer: check the address, and its token in RAY_AUTH_TOKEN"
        self._lose(Failure(kind="ClusterError", message=f"{said}; {log} says more"))

    def _lose(self, failure: Failure) -> None:
        """Tell the server of the end. The first failure that it is told of counts."""
        if not self._is_lost:
            self._is_lost = True
            self._names_log = self._setup.cluster.log in failure.message
            self._tell_all(Lost(failure))

    def _gone(self) -> Failure:
        """Why the driver has ended by itself."""
        cluster = self._setup.cluster
        said = (
            f"the cluster {cluster.address} is gone (Ray ended with exit code {self._process.exitcode}, and"
        )
        remedy = f"{cluster.log} says more): start the server again when the cluster is back"
        return Failure(kind="ClusterError", message=f"{said} {remedy}")


class RayWorker:
    """A place for one run on the cluster. See `Worker`.

    Attributes:
        end: how the replica of its last run ended.
    """

    name, pid = "a worker on the cluster", None

    def __init__(self, workers: RayWorkers, heard: Heard) -> None:
        self._workers, self._heard = workers, heard
        self.open_models: tuple[str, ...] = ()
        self.number = 0
        self.end = "ended"

    def tell(self, message: Any) -> None:
        """Pass a message on."""
        self._heard(self, message)

    def run(self, tasks: Sequence[ImageTask]) -> int:
        """See `Worker`."""
        self.number = self._workers.begin(self, tasks)
        return self.number

    def cancel(self) -> None:
        """See `Worker`."""
        self._workers.send(Cancel(self.number))

    def stop(self) -> None:
        """See `Worker`: the replicas are ended with the driver."""

    def kill(self) -> None:
        """See `Worker`: a replica ends by itself if it does not stop a run that is cancelled."""
        self.cancel()
