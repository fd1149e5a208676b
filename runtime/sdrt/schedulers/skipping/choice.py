"""Which rule skips calls in which run."""

from __future__ import annotations

from collections.abc import Mapping

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.skipping.base import Rule
from sdrt.schedulers.skipping.estimate_line import EstimateLine
from sdrt.schedulers.skipping.spectrum import Spectrum
from sdrt.schedulers.table import SamplerRow

__all__ = ["FEWEST_STEPS", "OFF", "rule_for", "why_none"]

OFF = "off"
"""The speed at which nothing is skipped."""
FEWEST_STEPS = 15
"""With fewer steps, each call counts."""

_LONG = 35
# By speed: the rule for long runs, of `_LONG` evaluations or more, and that for shorter ones.
_RULES: Mapping[str, tuple[Rule, Rule]] = {
    "balanced": (
        Spectrum(warm_up=3, window=3, growth=0.25),
        Spectrum(warm_up=5, window=2.5, growth=0.25, degree=2),
    ),
    "fast": (
        EstimateLine(warm_up=2, window=3.2, growth=0.7),
        EstimateLine(warm_up=1, window=3.7, growth=0.3, share=0.25),
    ),
}
# The same for samplers that add noise in each step. A line through two estimates would continue the noise in them. With
# the last estimate, two steps of such a sampler are one step of their length. The windows hardly grow, because each
# call takes in the noise of its window.
_WITH_NOISE: Mapping[str, tuple[Rule, Rule]] = {
    "balanced": (
        EstimateLine(warm_up=2, window=3, growth=0.1, share=0),
        EstimateLine(warm_up=2, window=2, growth=0.1, share=0),
    ),
    "fast": (
        EstimateLine(warm_up=2, window=4, growth=0.1, share=0),
        EstimateLine(warm_up=2, window=3, growth=0.1, share=0),
    ),
}


def rule_for(speed: str, plan: Plan, sampler: SamplerRow, *, stochastic: bool = False) -> Rule | None:
    """The rule that measured best for a speed: "off", "balanced" or "fast". None skips nothing.

    `stochastic` says whether the sampler adds noise in each step.
    """
    if speed == OFF or why_none(plan, sampler):
        return None
    long, short = (_WITH_NOISE if stochastic else _RULES)[speed]
    return long if plan.num_evaluations >= _LONG else short


def why_none(plan: Plan, sampler: SamplerRow) -> str:
    """The reason why nothing is skipped at any speed, or an empty text."""
    if sampler.is_distilled:
        return f"scheduler {sampler.name!r} is for few steps"
    if sampler.chooses_steps:
        return f"scheduler {sampler.name!r} chooses its steps by their error"
    if sampler.rises:
        return f"scheduler {sampler.name!r} returns to higher noise levels"
    steps = _steps(plan)
    return "" if steps >= FEWEST_STEPS else f"{steps} steps run, and it needs {FEWEST_STEPS}"


def _steps(plan: Plan) -> int:
    """How many steps run, of one evaluation or several."""
    return plan.step_of(plan.num_evaluations - 1) - plan.step_of(0) + 1
