"""What all rules for skipping share: what they know of a run, and what they decide.

A rule decides before each evaluation whether the U-Net is called, or whether a sum of what past calls gave takes the
place of a call. The sum has one weight for each past call. So it does not matter whether the rows of the batch are
summed before guidance or after it: guidance adds rows up too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers import Latents

__all__ = ["Call", "Past", "Rule", "Weights", "Windows", "line"]

Weights = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """A call of the U-Net.

    Attributes:
        index: the number of the evaluation, from 0.
        time: where in the run it is: 0 at the first timestep of the plan, 1 at the last.
        output: what the rule adds up: an array [..., C, h, w], the estimate or the slope.
    """

    index: int
    time: float
    output: Latents


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """What a rule knows before an evaluation.

    Attributes:
        plan: the evaluations of the run.
        index: the number of this evaluation, from 0.
        time: where in the run it is, as in `Call`.
        calls: the calls since the network and its inputs last changed, the oldest first.
    """

    plan: Plan
    index: int
    time: float
    calls: Sequence[Call]

    @property
    def skipped(self) -> int:
        """How many evaluations in a row were skipped before this one."""
        return self.index - self.calls[-1].index - 1

    @property
    def is_last(self) -> bool:
        """Whether the run ends with this evaluation."""
        return self.index == self.plan.num_evaluations - 1


class Rule(Protocol):
    """Decides which evaluations call the U-Net, and what takes the place of the others.

    Attributes:
        adds_estimates: whether the rule adds up estimates of the clean latents. Otherwise it adds up slopes
            (x - denoised)/σ, which are ε, or the velocity in flow matching.
    """

    adds_estimates: ClassVar[bool]

    def __call__(self, past: Past) -> Weights | None:
        """The weight of each past call's output in the sum that takes the place of a call; None to call the U-Net.

        There is at least one past call.
        """


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Which evaluations are called: the first ones, then one in a window, which grows with each call, and the last one.

    The decision depends on the numbers of the evaluations alone, not on what is in an image. So an image of a batch is
    the same as alone.

    Attributes:
        warm_up: the number of calls before any is skipped.
        window: one of so many evaluations is called, at first.
        growth: by how much the window grows with each call.
    """

    warm_up: int
    window: float
    growth: float

    def calls(self, past: Past) -> bool:
        """Whether the next evaluation is called."""
        since = len(past.calls) - self.warm_up
        return since < 0 or past.is_last or past.skipped + 1 >= math.floor(self.window + self.growth * since)


def line(past: Past) -> Weights:
    """The weights of the straight line in time through the last two calls at different times."""
    times = [call.time for call in past.calls]
    weights = np.zeros(len(times))
    weights[-1] = 1
    # Two evaluations of one step may be at the same time.
    others = [number for number, time in enumerate(times) if time != times[-1]]
    if others:
        further = (past.time - times[-1]) / (times[-1] - times[others[-1]])
        weights[[-1, others[-1]]] = 1 + further, -further
    return weights
