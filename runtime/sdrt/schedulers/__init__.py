"""Schedulers: a noise schedule, the spacing of a run over its levels, and the sampler that takes the steps."""

from __future__ import annotations

from typing import Any

from sdrt.schedulers.discrete_schedule import DiscreteNoiseSchedule
from sdrt.schedulers.edm_schedule import EdmNoiseSchedule
from sdrt.schedulers.flow_schedule import FlowNoiseSchedule
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.other_programs import (
    automatic_spacing,
    schedule_type_of,
    scheduler_of_a1111,
    scheduler_of_comfyui,
    version_of_a1111,
)
from sdrt.schedulers.plan import Plan, Step
from sdrt.schedulers.resolve import (
    resolve_scheduler,
    scheduler_names,
    split_name,
    unknown_scheduler,
)
from sdrt.schedulers.scheduler import Scheduler
from sdrt.schedulers.table import SAMPLERS, SPACING_LABELS, SPACINGS, SamplerRow

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "SPACING_LABELS",
    "DiscreteNoiseSchedule",
    "EdmNoiseSchedule",
    "FlowNoiseSchedule",
    "NoiseSchedule",
    "Plan",
    "SamplerRow",
    "Scheduler",
    "Step",
    "automatic_spacing",
    "resolve_scheduler",
    "schedule_type_of",
    "scheduler_names",
    "scheduler_of_a1111",
    "scheduler_of_comfyui",
    "split_name",
    "unknown_scheduler",
    "version_of_a1111",
]


def __getattr__(name: str) -> Any:
    """One of diffusers' classes, as `from sdrt import EulerDiscreteScheduler` gives it."""
    from sdrt.schedulers.diffusers_classes import SchedulerClass, class_names

    if name in class_names():
        return SchedulerClass(name)
    raise AttributeError(f"module 'sdrt.schedulers' has no attribute {name!r}")
