"""A request that a pipeline has checked against its model, with the steps that it will take."""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.errors import RequestError
from sdrt.model_folder.model import Model
from sdrt.request.fitted import FittedRequest, fit
from sdrt.request.request import Request
from sdrt.run.multi_pass import PlannedPass, plan_passes
from sdrt.schedulers import Scheduler

__all__ = ["PlannedRequest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedRequest:
    """The result of `StableDiffusionPipeline.plan`, which `stream` accepts."""

    request: FittedRequest
    """The request, completed with the size, the seed and the guidance scale."""
    scheduler: Scheduler
    """The scheduler of the call, without the request's own `timesteps` or `sigmas`."""
    passes: tuple[PlannedPass, ...]
    """The passes, whose schedulers have the request's own `timesteps` or `sigmas`."""
    model: Model
    """The model that the request was planned for."""

    @classmethod
    def of(
        cls,
        request: Request,
        scheduler: Scheduler,
        model: Model,
        hires_scheduler: Scheduler | None = None,
    ) -> PlannedRequest:
        """Complete a request and plan its steps. `hires_scheduler` is that of `request.hires_scheduler`.

        Raises:
            RequestError: the model or the scheduler cannot serve the request.
        """
        fitted = fit(request, model.capabilities, is_distilled=scheduler.sampler.is_distilled)
        with_levels = scheduler.with_levels(timesteps=fitted.timesteps, sigmas=fitted.sigmas)
        return cls(
            request=fitted,
            scheduler=scheduler,
            passes=tuple(plan_passes(fitted, with_levels, hires_scheduler)),
            model=model,
        )

    def check_for(self, model: Model, *, planned_again: bool) -> None:
        """Check that a pipeline of `model` can run this.

        Raises:
            RequestError: it was planned for another model, or `planned_again`: the caller names a scheduler or spacing.
        """
        if planned_again:
            raise RequestError.advised(
                "request is planned already",
                "pass scheduler and spacing to plan, not to stream",
                joint="; ",
                argument="scheduler",
            )
        if self.model is not model:
            raise RequestError.advised(
                "request was planned by another pipeline",
                "plan it with this one",
                joint="; ",
                argument="request",
            )

    @property
    def num_evaluations(self) -> int | None:
        """The number of steps that `stream` yields; None if the scheduler chooses its steps as it goes."""
        plans = [one.plan for one in self.passes]
        if any(plan.adaptive for plan in plans):
            return None
        return sum(plan.num_evaluations for plan in plans)
