"""What surrounds every run: its caller may cancel it, the program may end, and an error keeps no session."""

from __future__ import annotations

from collections.abc import Callable

from sdrt.common.cancelling import cancelling, stop_if_cancelled
from sdrt.common.frames import forget_locals
from sdrt.common.program_end import at_work
from sdrt.errors import RunCancelledError
from sdrt.run.result import Events, StableDiffusionPipelineOutput

__all__ = ["guarded"]


def guarded(events: Events, is_cancelled: Callable[[], object] | None, num_steps: int | None) -> Events:
    """Yield `events` until `is_cancelled()` is true. `num_steps` is the number of steps among them, None
    if nobody knows it yet.

    Raises:
        RunCancelledError: the run was cancelled.
        SystemExit: the program is ending, and this is not its main thread.
    """
    steps = 0
    try:
        while True:
            # The block excludes `yield`, because the caller's work meanwhile is not part of the run.
            with at_work(), cancelling(is_cancelled):
                stop_if_cancelled()
                event = next(events)
            if isinstance(event, StableDiffusionPipelineOutput):
                break
            steps += 1
            yield event
            del event
    except RunCancelledError as error:
        error.steps, error.num_steps = steps, num_steps
        forget_locals(error)
        raise
    except BaseException as error:
        events.close()
        forget_locals(error)
        raise
    finally:
        events.close()
    yield event
