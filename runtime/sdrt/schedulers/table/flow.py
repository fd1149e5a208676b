"""Schedulers for models trained by flow matching. The rules are Euler and Heun, but the noise levels differ."""

from __future__ import annotations

from sdrt.schedulers import evaluations, samplers
from sdrt.schedulers.flow_schedule import build_flow_schedule
from sdrt.schedulers.table.row import BETA_KEYS, LEVEL_KEYS, SamplerRow

__all__ = ["FLOW"]

_SPACINGS = ("linspace", "karras", "exponential", "beta")
# diffusers' Heun ignores all but the first, and a model that needs the others would get wrong noise levels.
_KEYS = frozenset({"shift", "use_dynamic_shifting", "shift_terminal", "invert_sigmas"})

FLOW = (
    SamplerRow(
        name="flow_euler",
        display_name="Flow Euler",
        class_name="FlowMatchEulerDiscreteScheduler",
        order=1,
        integrate=samplers.ancestral,
        plan=evaluations.flow_euler_plan,
        spacings=_SPACINGS,
        keys=_KEYS | LEVEL_KEYS | {"stochastic_sampling"},
        ignores=BETA_KEYS,
        schedule=build_flow_schedule,
        on_flow="flow_euler",
    ),
    SamplerRow(
        name="flow_heun",
        display_name="Flow Heun",
        class_name="FlowMatchHeunDiscreteScheduler",
        order=2,
        evaluations=2,
        integrate=samplers.heun,
        plan=evaluations.flow_heun_plan,
        spacings=_SPACINGS,
        keys=_KEYS,
        ignores=BETA_KEYS,
        schedule=build_flow_schedule,
        on_flow="flow_heun",
    ),
)
