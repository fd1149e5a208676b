"""The process that drives Ray: a dataset of groups, mapped by actors that keep a model open."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sdrt.batch.row import MODEL
from sdrt.serve.make import failure_of, make
from sdrt.serve.models import Models
from sdrt.serve.on_ray.cluster import Cluster, as_the_driver, connect, disconnect, log_to, told
from sdrt.serve.task import Failure, ImageTask, Made
from sdrt.serve.worker_process import WorkerSetup

__all__ = ["Answered", "Begun", "Ended", "RaySetup", "Round", "Stop", "Told", "main"]

_RETRIES = 1
"""How often Ray tries a run again whose actor has ended."""
_MOST_BLOCKS = 10_000
"""A block is what an actor gets at once, and answers at once."""


@dataclass(frozen=True, kw_only=True)
class RaySetup:
    """Which cluster, and what its actors need to know.

    Attributes:
        cluster: the cluster, and how many actors.
        worker: the model, and how to open it.
    """

    cluster: Cluster
    worker: WorkerSetup


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
            as_the_driver(setup.cluster)
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
    log_to(setup.cluster.log)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, messages), name="sdrt-messages", daemon=True).start()
    try:
        connect(setup.cluster)
        connection.send(Begun())
        while isinstance(message := messages.get(), Round):
            for answered in _answers(message.groups, setup):
                connection.send(answered)
            connection.send(Ended())
    except Exception as error:  # told, because this process is about to end
        with suppress(OSError):
            connection.send(Told(_told(error, setup)))
    disconnect()


def _read(connection: Connection, messages: queue.SimpleQueue[Any]) -> None:
    """Receive messages. They arrive during rounds too, of which `Stop` ends one."""
    with suppress(EOFError, OSError):
        while isinstance(message := connection.recv(), Round):
            messages.put(message)
    # Of a cluster elsewhere, this also frees what the run takes there.
    disconnect()
    os._exit(0)


def _answers(groups: Sequence[Sequence[ImageTask]], setup: RaySetup) -> Iterator[Answered]:
    """Map the groups by actors, and yield the answers as they come. A group whose actors ended has none."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # any number: those without an answer are asked for again
    context.execution_options.preserve_order = False
    items = [{"number": number, "tasks": pickle.dumps(tasks)} for number, tasks in enumerate(groups)]
    count = min(setup.cluster.workers, len(items))
    answers = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
        Maker,
        fn_constructor_args=(setup,),
        batch_size=1,
        # With "numpy", large numbers beside empty cells would become fractions.
        batch_format="pyarrow",
        # One run at a time, because an actor that ends takes those that wait for it along.
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        num_cpus=setup.cluster.cpus,
        num_gpus=setup.cluster.gpus,
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
    return told(error, setup.cluster, "run the same command again to make what is missing")
