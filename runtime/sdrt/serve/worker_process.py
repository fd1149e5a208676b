"""A worker: the process that makes images. It gets messages from the server, and answers them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sdrt.errors import RunCancelledError
from sdrt.serve.served_model import ServedModel
from sdrt.serve.task import Failure, ImageTask, Made, Progress

if TYPE_CHECKING:
    from sdrt.pipeline import StableDiffusionPipeline

__all__ = [
    "Cancel",
    "Cancelled",
    "Done",
    "Failed",
    "Lost",
    "Ready",
    "Run",
    "Stepped",
    "Stop",
    "WorkerSetup",
    "answer",
    "main",
]


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs to know.

    Attributes:
        models: the models that it can open, by name.
        options: arguments of `StableDiffusionPipeline.from_pretrained`.
        first: the model to open at once. None to open each when it is asked for.
        max_memory: bytes above which it closes models. None for no limit.
    """

    models: Mapping[str, ServedModel]
    options: Mapping[str, Any] = field(default_factory=dict)
    first: str | None = None
    max_memory: int | None = None


# To the worker. `number` counts the runs of this worker.


@dataclass(frozen=True)
class Run:
    """Make images, for one task or several that share a run."""

    number: int
    tasks: Sequence[ImageTask]


@dataclass(frozen=True)
class Cancel:
    """Stop a run."""

    number: int


@dataclass(frozen=True)
class Stop:
    """End the process after the run that it does now."""


# From the worker.


@dataclass(frozen=True)
class Ready:
    """The worker takes runs. `failure` says why its first model could not be opened."""

    provider: str | None
    failure: Failure | None = None
    open_models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lost:
    """There are no workers any more, and will be none."""

    failure: Failure


@dataclass(frozen=True)
class Stepped:
    """A step of a run is done."""

    number: int
    progress: Progress


@dataclass(frozen=True)
class Done:
    """A run is done. `open_models` are those that the worker has open now."""

    number: int
    made: Sequence[Made]
    open_models: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A run failed. `trace` is for the log."""

    number: int
    failure: Failure
    open_models: tuple[str, ...]
    trace: str = ""


@dataclass(frozen=True)
class Cancelled:
    """A run was cancelled."""

    number: int
    open_models: tuple[str, ...]


class Connection(Protocol):
    """What carries the messages: `Messages`, or a connection of `multiprocessing`."""

    def send(self, message: Any, /) -> None:
        """Send a message. Raises `OSError` if nobody is there."""

    def recv(self) -> Any:
        """Wait for a message. Raises `EOFError` or `OSError` if nobody is there."""


def main(connection: Connection, setup: WorkerSetup) -> None:
    """The function of the process. It returns when the server says so, or is gone."""
    # A terminal sends Ctrl-C to the whole group, as systemd sends SIGTERM, and the server decides what ends when.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _Worker(connection, setup).work()


class _Worker:
    def __init__(self, connection: Connection, setup: WorkerSetup) -> None:
        self._connection, self._setup = connection, setup
        # Imported here, because the server imports this module too, and never needs them.
        from sdrt.serve.models import Models

        self._notices: list[str] = []
        self._models = Models(setup.models, setup.options, setup.max_memory, self._notices.append)
        self._runs: deque[Run | Stop] = deque()
        self._arrived = threading.Condition()
        self._cancelled: set[int] = set()

    def work(self) -> None:
        """Do one run after the other."""
        threading.Thread(target=self._read, name="sdrt-messages", daemon=True).start()
        self._send(self._ready())
        while isinstance(message := self._next(), Run):
            self._send(self._answer(message))
            self._cancelled.discard(message.number)

    def _read(self) -> None:
        """Receive messages. They arrive during runs too."""
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, Cancel):
                    self._cancelled.add(message.number)
                    continue
                with self._arrived:
                    self._runs.append(message)
                    self._arrived.notify()
        except (EOFError, OSError):
            # The server is gone, so nobody waits for an answer, and nothing was promised to a file.
            os._exit(1)

    def _next(self) -> Run | Stop:
        with self._arrived:
            self._arrived.wait_for(lambda: self._runs)
            return self._runs.popleft()

    def _ready(self) -> Ready:
        first = self._setup.first
        if first is None:
            return Ready(None)
        try:
            return Ready(self._models.get(first).load().provider, open_models=(first,))
        except Exception as error:  # told by the server, which then ends
            from sdrt.serve.make import failure_of

            return Ready(None, failure_of(error))

    def _answer(self, run: Run) -> Done | Failed | Cancelled:
        self._notices.clear()
        return answer(
            run,
            self._models.get,
            self._models.trim,
            emit=lambda progress: self._send(Stepped(run.number, progress)),
            cancel=lambda: run.number in self._cancelled,
            notices=self._notices,
        )

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:  # the server is gone
            sys.exit(1)


def answer(
    run: Run,
    opened: Callable[[str], StableDiffusionPipeline],
    open_models: Callable[[], tuple[str, ...]],
    *,
    emit: Callable[[Progress], object],
    cancel: Callable[[], object],
    notices: Sequence[str],
) -> Done | Failed | Cancelled:
    """Make the images of a run, and say what became of it, whatever that is.

    Args:
        run: the run.
        opened: returns the pipeline of a model.
        open_models: returns the names of those that are open afterwards.
        emit, cancel, notices: see `make`.
    """
    # Imported here, because the server imports this module too, and never needs them.
    from sdrt.serve.make import failure_of, make

    try:
        pipeline = opened(run.tasks[0].model)
        made = make(pipeline, run.tasks, emit=emit, cancel=cancel, notices=notices)
    except RunCancelledError:
        return Cancelled(run.number, open_models())
    except Exception as error:  # every request gets an answer, and the worker goes on
        return Failed(run.number, failure_of(error), open_models(), _trace(error))
    return Done(run.number, made, open_models())


def _trace(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
