"""The process that drives Ray: a dataset of groups, mapped by actors that keep a model open."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sdrt.batch.row import MODEL
from sdrt.common.control_groups import usable_cpus
from sdrt.common.version import __version__
from sdrt.errors import ProviderError, RequestError, SdrtError
from sdrt.serve.make import failure_of, make
from sdrt.serve.models import Models
from sdrt.serve.task import Failure, ImageTask, Made
from sdrt.serve.worker_process import WorkerSetup

__all__ = ["Answered", "Begun", "Ended", "RaySetup", "Round", "Stop", "Told", "main"]

LOCAL = "local"
_RETRIES = 1
"""How often Ray tries a run again whose actor has ended."""
_MOST_BLOCKS = 10_000
"""A block is what an actor gets at once, and answers at once."""
_LOCAL_STORE = 200 * 10**6
"""Bytes of shared memory for Ray on this machine. By itself it takes a third of the memory."""


@dataclass(frozen=True, kw_only=True)
class RaySetup:
    """Which cluster, and what its actors need to know.

    Attributes:
        address: the cluster's address, or "local" for this machine.
        worker: the model, and how to open it.
        workers: how many actors.
        cpus, gpus: what each actor takes of a node, in CPUs and GPUs or parts of them.
        log: the file that gets what Ray's libraries print.
        folder: the folder that relative paths are in.
        version: the version of sdrt that the nodes must have.
    """

    address: str
    worker: WorkerSetup
    workers: int
    cpus: float
    gpus: float
    log: str
    folder: str = field(default_factory=os.getcwd)
    version: str = __version__


@dataclass(frozen=True)
class Round:
    """To the driver: make these groups of tasks."""

    groups: Sequence[Sequence[ImageTask]]


@dataclass(frozen=True)
class Stop:
    """To the driver: end."""


@dataclass(frozen=True)
class Begun:
    """From the driver: the cluster answers."""


@dataclass(frozen=True)
class Answered:
    """From the driver: what became of a group."""

    number: int
    answer: list[Made] | Failure


@dataclass(frozen=True)
class Ended:
    """From the driver: there is no more to come of this round."""


@dataclass(frozen=True)
class Told:
    """From the driver: why nothing can be made any more."""

    failure: Failure


class Maker:
    """An actor: makes the images of groups, one after the other. Only errors that all groups would have are fatal."""

    def __init__(self, setup: RaySetup) -> None:
        self._notices: list[str] = []
        self._fatal: Failure | None = None
        try:
            if __version__ != setup.version:
                raise ProviderError.advised(
                    f"a node has sdrt {__version__}, and this machine {setup.version}",
                    "install the same version",
                )
            with suppress(OSError):
                os.chdir(setup.folder)
            worker = setup.worker
            self._models = Models(worker.models, worker.options, worker.max_memory, self._notices.append)
            self._models.get(MODEL).load()
        except Exception as error:  # told by the answers, because Ray would try again for ever
            self._fatal = failure_of(error)

    def __call__(self, batch: Any) -> Any:
        """Answer the groups in a table, as Ray calls it: pixels go back as the bytes of files."""
        import pyarrow as pa

        answers = [self._answer(pickle.loads(one.as_py())) for one in batch["tasks"]]
        return pa.table(
            {
                "number": batch["number"],
                "is_fatal": pa.array([self._fatal is not None] * len(answers)),
                "answer": pa.array([pickle.dumps(one) for one in answers], pa.large_binary()),
            }
        )

    def _answer(self, tasks: Sequence[ImageTask]) -> list[Made] | Failure:
        if self._fatal is not None:
            return self._fatal
        self._notices.clear()
        try:
            return make(self._models.get(MODEL), tasks, notices=self._notices)
        except Exception as error:  # a row with its error
            return failure_of(error)


def main(connection: Connection, setup: RaySetup) -> None:
    """The function of the process. It returns when it is told to, or when nothing can be made any more."""
    # A terminal sends Ctrl-C to the whole group, and the command decides what ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _log_to(setup.log)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, messages), name="sdrt-messages", daemon=True).start()
    try:
        _connect(setup)
        connection.send(Begun())
        while isinstance(message := messages.get(), Round):
            for answered in _answers(message.groups, setup):
                connection.send(answered)
            connection.send(Ended())
    except Exception as error:  # told, because this process is about to end
        with suppress(OSError):
            connection.send(Told(_told(error, setup)))
    _disconnect()


def _log_to(name: str) -> None:
    """Let what Ray prints go to a file: its native code writes to the streams of the process."""
    with suppress(OSError), Path(name).open("wb") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)


def _read(connection: Connection, messages: queue.SimpleQueue[Any]) -> None:
    """Receive messages. They arrive during rounds too, of which `Stop` ends one."""
    with suppress(EOFError, OSError):
        while isinstance(message := connection.recv(), Round):
            messages.put(message)
    # Of a cluster elsewhere, this also frees what the run takes there.
    _disconnect()
    os._exit(0)


def _disconnect() -> None:
    if (ray := sys.modules.get("ray")) is not None:
        with suppress(Exception):  # it is gone already
            ray.shutdown()


def _connect(setup: RaySetup) -> None:
    import logging

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    is_local = setup.address == LOCAL
    if is_local:
        # Ray listens on all addresses of this machine, and runs what it is sent.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    ray.init(
        address=setup.address,
        include_dashboard=False if is_local else None,
        object_store_memory=_LOCAL_STORE if is_local else None,
        num_cpus=_local_cpus(setup) if is_local else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
    )
    _check_nodes(setup, ray.nodes())


def _local_cpus(setup: RaySetup) -> int:
    """The CPUs that this machine offers: never fewer than one actor takes, and one for Ray's own tasks."""
    return max(usable_cpus() or 1, int(-(-setup.workers * setup.cpus // 1)) + 1)


def _check_nodes(setup: RaySetup, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Check that a node has what an actor takes. Ray would wait for one that does."""
    wanted = {"CPU": setup.cpus, "GPU": setup.gpus}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in alive):
        has = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in alive)
        raise RequestError.expected(
            f"no node has {setup.cpus:g} CPU and {setup.gpus:g} GPU for a worker (there are {has})",
            "smaller --cpus-per-worker and --gpus-per-worker",
        )


def _answers(groups: Sequence[Sequence[ImageTask]], setup: RaySetup) -> Iterator[Answered]:
    """Map the groups by actors, and yield the answers as they come. A group whose actors ended has none."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # any number: those without an answer are asked for again
    context.execution_options.preserve_order = False
    items = [{"number": number, "tasks": pickle.dumps(tasks)} for number, tasks in enumerate(groups)]
    count = min(setup.workers, len(items))
    answers = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
        Maker,
        fn_constructor_args=(setup,),
        batch_size=1,
        # With "numpy", large numbers beside empty cells would become fractions.
        batch_format="pyarrow",
        # One run at a time, because an actor that ends takes those that wait for it along.
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        num_cpus=setup.cpus,
        num_gpus=setup.gpus,
        # Not as arguments, which are deprecated. Ray Data's own value is to try again for ever.
        ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": _RETRIES},
    )
    for table in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in table.to_pylist():
            answer = pickle.loads(row["answer"])
            if row["is_fatal"]:
                raise _FatalError(answer)
            yield Answered(row["number"], answer)


class _FatalError(Exception):
    """What an actor cannot do for any group."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _told(error: Exception, setup: RaySetup) -> Failure:
    if isinstance(error, _FatalError):
        return error.failure
    if isinstance(error, SdrtError):
        return failure_of(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = f"Ray at {setup.address} failed: {type(error).__name__}: {lines[0]}"
    remedy = f"{setup.log} says more; run the same command again to make what is missing"
    return Failure(kind="SdrtError", message=f"{said}; {remedy}")
