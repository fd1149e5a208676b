"""A request that a pipeline has fitted to its model and planned the steps of."""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.families.capabilities import Capabilities
from sdrt.request.fitted import FittedRequest, fit
from sdrt.request.request import Request
from sdrt.run.multi_pass import plan_passes
from sdrt.schedulers import Plan, Scheduler

__all__ = ["PlannedRequest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedRequest:
    """What `StableDiffusionPipeline.plan` gives and `stream` takes."""

    request: FittedRequest
    """With the size, the seed and the guidance that it is done with."""
    scheduler: Scheduler
    """As it was asked for: without the request's own `timesteps` or `sigmas`."""
    rule: Scheduler
    """The same, with them."""
    passes: tuple[Plan, ...]
    capabilities: Capabilities
    """Of the model that it was planned for."""

    @classmethod
    def of(cls, request: Request, scheduler: Scheduler, capabilities: Capabilities) -> PlannedRequest:
        """Fit a request and plan its steps. Raises `RequestError` for what the model or the scheduler cannot do."""
        fitted = fit(request, capabilities)
        rule = scheduler.with_levels(timesteps=request.timesteps, sigmas=request.sigmas)
        passes = tuple(plan_passes(fitted, rule))
        return cls(request=fitted, scheduler=scheduler, rule=rule, passes=passes, capabilities=capabilities)

    @property
    def num_evaluations(self) -> int:
        """How many steps `stream` yields."""
        return sum(plan.num_evaluations for plan in self.passes)
