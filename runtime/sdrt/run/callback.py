"""The function that a caller passes to be called after each step, as in diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.common.messages import wrong_value
from sdrt.run.result import Events, StableDiffusionPipelineOutput, checked_names, wrong_return

__all__ = ["StepCallback"]


@dataclass(frozen=True)
class StepCallback:
    """A `function` of the pipeline, the step's index, its timestep and the tensors `names`; None for no function.

    Raises:
        RequestError: it is no function, or a name is not in `CALLBACK_TENSORS`.
    """

    function: Callable[[Any, int, float, dict[str, Any]], Mapping[str, Any] | None] | None
    names: Sequence[str]

    def __post_init__(self) -> None:
        # A copy, because the caller may change the list during the run.
        names = checked_names("callback_on_step_end_tensor_inputs", self.names)
        object.__setattr__(self, "names", names)
        if self.function is not None and not callable(self.function):
            raise wrong_value("callback_on_step_end", self.function, "a function")

    def run(self, pipeline: Any, events: Events) -> StableDiffusionPipelineOutput:
        """Run to the end, and call the function after each step. What it returns goes into the next step.

        Raises:
            RequestError: it returned something else than None or a dict with some of the tensors that it got.
        """
        for event in events:
            if isinstance(event, StableDiffusionPipelineOutput):
                return event
            if self.function is not None:
                returned = self.function(pipeline, event.index, event.timestep, event.tensors(self.names))
                event.update(_answer(returned, self.names))
        raise AssertionError("a stream ends with its result")


def _answer(returned: object, names: Sequence[str]) -> Mapping[str, Any]:
    """Check what a callback returned: None, or a dict with some of the tensors that it got. Raises `RequestError`."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise wrong_return(f"{type(returned).__name__}", "a dict or None", "callback_on_step_end")
    if unasked := [name for name in returned if name not in names]:
        raise wrong_return(
            f"{unasked[0]!r}",
            f"only tensors that callback_on_step_end_tensor_inputs names ({', '.join(names) or 'none'})",
            str(unasked[0]),
        )
    return returned
