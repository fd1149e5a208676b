"""Ctrl-C, and other reasons to stop, while native code or a library's code runs."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from sdrt.common.cancelling import INTERVAL, cancellable, stop_if_cancelled
from sdrt.common.program_end import at_work, ends_with
from sdrt.errors import RunCancelledError

__all__ = ["Worker", "asked", "asked_to_stop", "interruptible", "stop_if_asked", "was_interrupted"]

T = TypeVar("T")

_asked: list[BaseException] = []

_GRACE = 0.05
"""Seconds that a cancelled run waits for native code to stop. It looks at `stop` between two operators."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[BaseException], None]]:
    """Yield a function for signal handlers: `stop_if_asked` raises the exception that they pass to it."""
    _asked.clear()
    try:
        yield _asked.append
    finally:
        _asked.clear()


def asked() -> BaseException | None:
    """The exception of the last signal handler. None without a signal."""
    return _asked[-1] if _asked else None


def stop_if_asked() -> None:
    """Raise the exception of the last signal handler again, in case something has swallowed it.

    Torch's tracer does so, and Python while it frees an object.
    """
    if _asked:
        raise _asked[-1]


class Worker:
    """A thread that does one piece of work after another, until this object is deleted.

    An executor of the standard library would refuse work once the main thread has ended, though other threads may still
    be running.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, because it may be idle when Python ends. Callers wait for the work that they submit.
        threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def submit(self, work: Callable[[], None]) -> None:
        """Queue `work`, which must not raise."""
        self._queue.put(work)


def _work(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := queue.get()) is not None:
        work()
        # Otherwise its objects would live until the next piece of work.
        del work


class _Call:
    """One call of `work`, in the thread that calls `run`. It keeps what `work` returned or raised."""

    def __init__(self, work: Callable[[], Any], stop: Callable[[], None]) -> None:
        self._work, self._stop = work, stop
        self.value: Any = None
        self.error: BaseException | None = None
        self.entered, self.done, self.revoked = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        # First, so that a caller who gives up before this need not wait: the check below sees `revoked`.
        self.entered.set()
        try:
            if not self.revoked.is_set():
                with ends_with(self._stop):
                    self.value = self._work()
        except BaseException as error:  # handed to the waiting thread, which raises it
            # Without this frame, which refers to this object.
            self.error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        finally:
            self.done.set()

    def stopped_within(self, seconds: float) -> bool:
        """Stop the work. Tell whether it stopped in time, or will never begin."""
        self.revoked.set()
        if not self.entered.is_set():
            return True
        self._stop()
        return self.done.wait(seconds)

    def result(self) -> Any:
        """Return what the work returned, or raise what it raised."""
        if self.error is None:
            return self.value
        error, self.error = self.error, None
        try:
            raise error
        finally:
            # The traceback refers to this frame: both would live until the garbage collector runs.
            del error


def interruptible(work: Callable[[], T], stop: Callable[[], None], worker: Worker | None = None) -> T:
    """Do `work`. Ctrl-C, the token of `cancelling` and the end of the program call `stop`, which ends it early.

    Python handles signals only between bytecodes of the main thread, so work of the main thread moves to another
    thread. So does work that a token may cancel. With `worker`, the work of every thread moves there.

    When this returns or raises, the work has stopped or will never begin, so the caller may use its buffers again.
    There is one exception: without `worker`, a cancelled caller does not wait for an operator that takes long, and the
    work goes on until its end. So `work` must keep alive what it uses, and say when it is done with buffers.

    Raises:
        KeyboardInterrupt, RunCancelledError, SystemExit (see `at_work`), and what `work` raises.
    """
    with at_work():
        stop_if_asked()
        stop_if_cancelled()
        is_main = threading.current_thread() is threading.main_thread()
        call = _Call(work, stop)
        try:
            if worker is not None:
                worker.submit(call.run)
            elif not ((is_main or cancellable()) and _started(call.run)):
                call.run()
            _wait(call)
        except RunCancelledError:
            if not call.stopped_within(_GRACE) and worker is not None:
                _wait_out(call)
            raise
        except BaseException:
            _wait_out(call)
            raise
        found: T = call.result()
        return found


def _started(run: Callable[[], None]) -> bool:
    """Run this in a new thread. Return False if there can be none: the program is ending, or a limit is reached."""
    try:
        # Python must not end under the main thread's native code. A daemon's may be ended with it.
        daemon = False if threading.current_thread() is threading.main_thread() else None
        threading.Thread(target=run, name="sdrt-run", daemon=daemon).start()
    except RuntimeError:
        # The work needs no thread of its own. It then ends before Ctrl-C is noticed.
        return False
    return True


def _wait(call: _Call) -> None:
    """Wait until a call is done. Raises `RunCancelledError` if this thread's run is cancelled meanwhile."""
    # On Windows, Ctrl-C does not interrupt a wait without a timeout.
    while not call.done.wait(INTERVAL if cancellable() else 0.2):
        stop_if_cancelled()


def _wait_out(call: _Call) -> None:
    """Stop a call, and wait until it has stopped or will never begin."""
    stopped = False
    while not stopped:
        # Wait on if Ctrl-C is pressed again: the work still uses the buffers.
        with suppress(KeyboardInterrupt, SystemExit):
            stopped = call.stopped_within(0.2)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused `error`: a native module that it interrupts during import raises ImportError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
