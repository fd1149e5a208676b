"""The process that drives Ray for a server. It may end without a word when the cluster does."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sdrt.serve.make import failure_of
from sdrt.serve.messages import Messages
from sdrt.serve.on_ray.cluster import connect, disconnect, log_to, told
from sdrt.serve.on_ray.replica import Answered, RaySetup, Replica
from sdrt.serve.task import Failure
from sdrt.serve.worker_process import Cancel, Cancelled, Failed, Lost, Ready, Run, Stop

__all__ = ["Connected", "Ended", "Running", "main"]

_MOST_ATTEMPTS = 3
"""How often the first model is opened, if the replica that opens it ends."""
_GRACE = 3.0
"""Seconds in which runs are cancelled when the server ends."""
_INTERVAL = 1.0
"""Seconds after which the replicas are counted."""
_DELAYS = {
    "upscale_delay_s": 1.0,
    "downscale_delay_s": 300.0,
    "metrics_interval_s": 1.0,
    "look_back_period_s": 2.0,
}
"""When Ray starts and ends replicas. Its own values take half a minute to start one."""

_ending = threading.Lock()


# What the driver sends. It receives what a worker receives, and passes on what replicas say.


@dataclass(frozen=True)
class Connected:
    """The cluster answers."""


@dataclass(frozen=True)
class Running:
    """So many replicas run."""

    replicas: int


@dataclass(frozen=True)
class Ended:
    """The replica of a run has ended. `reason` says how."""

    number: int
    reason: str


def main(connection: Messages, setup: RaySetup) -> None:
    """The function of the process. It returns when the server says so or is gone, or nothing can be made any more."""
    log_to(setup.cluster.log)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(
        target=_read, args=(connection, messages, setup), name="sdrt-messages", daemon=True
    ).start()

    def send(message: Any) -> None:
        with suppress(OSError):  # the other thread notices that the server is gone
            connection.send(message)

    try:
        _ignore_signals()
        connect(setup.cluster)
        _ignore_signals()  # Ray has handlers of its own
        send(Connected())
        asyncio.run(_Driver(send, messages, setup, _deployed(setup)).work())
        code = 0
    except Exception as error:  # told, because this process is about to end
        remedy = "start the server again when the cluster works, or with --ray local on this machine alone"
        send(Lost(told(error, setup.cluster, remedy)))
        code = 1
    _end(setup)
    os._exit(code)


def _ignore_signals() -> None:
    """A terminal sends Ctrl-C to the whole group, and the server decides what ends when."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _read(connection: Messages, messages: queue.SimpleQueue[Any], setup: RaySetup) -> None:
    """Receive messages. A server that is gone ends the process."""
    with suppress(EOFError, OSError):
        while True:
            messages.put(connection.recv())
    messages.put(Stop())
    time.sleep(_GRACE)  # the other thread ends the process, unless it waits for the cluster
    _end(setup)
    os._exit(0)


def _end(setup: RaySetup) -> None:
    """Remove the application, and let go of the cluster. Two threads may come here, of which one does it."""
    with _ending:
        ray, serve = sys.modules.get("ray"), sys.modules.get("ray.serve")
        # Without a connection, Ray would look for a cluster, and may find another one.
        if ray is not None and serve is not None and ray.is_initialized():
            with suppress(Exception):  # it is gone already
                serve.delete(setup.app, _blocking=False)
        disconnect()


def _deployed(setup: RaySetup) -> Any:
    """Start the application, and return its handle once `least` replicas run. It replaces one of the same name."""
    from ray import serve

    serve.start(proxy_location="Disabled")  # the server answers HTTP itself
    deployment = serve.deployment(
        Replica,
        name="images",
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": setup.cluster.cpus, "num_gpus": setup.cluster.gpus},
        autoscaling_config={
            "min_replicas": setup.least,
            "max_replicas": setup.cluster.workers,
            "target_ongoing_requests": 1,
            **_DELAYS,
        },
        graceful_shutdown_timeout_s=setup.longest,
    )
    return serve.run(deployment.bind(setup), name=setup.app, route_prefix=None)


class _Driver:
    """Sends runs to replicas, and tells the server what they say."""

    def __init__(
        self,
        send: Callable[[Any], object],
        messages: queue.SimpleQueue[Any],
        setup: RaySetup,
        handle: Any,
    ) -> None:
        self._send, self._messages, self._setup, self._handle = send, messages, setup, handle
        self._streams: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def work(self) -> None:
        """Do what the server says."""
        ready = await self._opened()
        if ready.failure is not None:
            self._send(Lost(ready.failure))
            return
        self._send(ready)
        self._go_on(self._count())
        loop = asyncio.get_running_loop()
        while not isinstance(message := await loop.run_in_executor(None, self._messages.get), Stop):
            if isinstance(message, Run):
                self._begin(message)
            elif isinstance(message, Cancel) and message.number in self._streams:
                self._streams[message.number].cancel()
        # Otherwise replicas go on with their runs, although nobody hears of them.
        for stream in self._streams.values():
            stream.cancel()

    async def _opened(self) -> Ready:
        """Open the first model on a replica."""
        from ray.exceptions import RayActorError

        first, last = self._setup.worker.first, ""
        handle = self._handle.options(multiplexed_model_id=first or "")
        for _ in range(_MOST_ATTEMPTS):
            try:
                ready: Ready = await handle.open.remote(first)
                return ready
            except RayActorError as error:
                last = _reason(error)
        message = f"workers end while they open {first} ({_MOST_ATTEMPTS} in a row): the last {last}"
        return Ready(None, Failure(kind="WorkerError", message=message))

    async def _count(self) -> None:
        """Say how many replicas run, when that changes."""
        before = None
        while True:
            with suppress(Exception):  # asked again
                running = await asyncio.to_thread(_replicas, self._setup.app)
                if running != before:
                    self._send(Running(running))
                before = running
            await asyncio.sleep(_INTERVAL)

    def _go_on(self, task: Any) -> None:
        going = asyncio.ensure_future(task)
        self._tasks.add(going)
        going.add_done_callback(self._tasks.discard)

    def _begin(self, run: Run) -> None:
        handle = self._handle.options(stream=True, multiplexed_model_id=run.tasks[0].model)
        stream = self._streams[run.number] = handle.make.remote(run)
        self._go_on(self._pass_on(run, stream))

    async def _pass_on(self, run: Run, stream: Any) -> None:
        """Send what a replica says of a run."""
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import RequestCancelledError

        message: Any = None
        try:
            async for message in stream:
                self._send(message)
        except RequestCancelledError:
            self._send(Cancelled(run.number, ()))
        except RayActorError as error:
            self._send(Ended(run.number, _reason(error)))
        except Exception as error:  # every run gets an answer
            self._send(Failed(run.number, failure_of(error), (), str(error)))
        else:
            if not isinstance(message, Answered):
                self._send(Ended(run.number, "ended without an answer"))
        finally:
            del self._streams[run.number]


def _replicas(app: str) -> int:
    """How many replicas run."""
    from ray import serve

    states = [one.replica_states for one in serve.status().applications[app].deployments.values()]
    return sum(int(one.get("RUNNING", 0)) for one in states)


def _reason(error: Exception) -> str:
    """How a replica ended, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("The actor is")), lines[0] if lines else "")
    return f"ended ({type(error).__name__}: {said[:300]})"
