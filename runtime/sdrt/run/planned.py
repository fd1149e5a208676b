"""A request that a pipeline has checked against its model, with the steps that it will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdrt.adapters.adaptation import NO_ADAPTATION, Adaptation
from sdrt.errors import RequestError
from sdrt.model_folder.model import Model
from sdrt.request.controls import check_shares
from sdrt.request.fitted import FittedRequest
from sdrt.request.fitting import fit
from sdrt.request.refined import fit_both
from sdrt.request.request import Request
from sdrt.run.lora_texts import NO_LORAS, LoraTexts
from sdrt.run.multi_pass import PlannedPass, plan_passes
from sdrt.run.origin import Origin
from sdrt.run.refiner import Refiner
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
    refiner: Refiner | None = None
    """The model that takes over in the middle of a run."""

    @classmethod
    def of(
        cls,
        request: Request,
        scheduler: Scheduler,
        model: Model,
        hires_scheduler: Scheduler | None = None,
        refiner: Refiner | None = None,
        adaptation: Adaptation = NO_ADAPTATION,
        refiner_adaptation: Adaptation = NO_ADAPTATION,
    ) -> PlannedRequest:
        """Complete a request and plan its steps.

        `hires_scheduler` is that of `request.hires_scheduler`, `refiner` the model of `request.refiner`, and
        `adaptation` and `refiner_adaptation` what changes the two models.

        Raises:
            RequestError: a model or the scheduler cannot serve the request.
        """
        refining, is_distilled = None, scheduler.sampler.is_distilled
        if refiner is None:
            fitted = fit(request, model.capabilities, is_distilled=is_distilled)
        else:
            refiner.check_fits(model, scheduler.noise_schedule)
            second = refiner.model
            fitted, own = fit_both(
                request, model.capabilities, second.capabilities, second.name, is_distilled=is_distilled
            )
            refining = (refiner, own if second is model else {**own, "adaptation": refiner_adaptation})
        fitted = replace(fitted, adaptation=adaptation)
        with_levels = scheduler.with_levels(timesteps=fitted.timesteps, sigmas=fitted.sigmas)
        passes = tuple(plan_passes(fitted, with_levels, hires_scheduler, refining))
        check_shares(fitted.controls, adaptive=any(one.plan.adaptive for one in passes))
        return cls(
            request=fitted,
            scheduler=scheduler,
            passes=passes,
            model=model,
            refiner=refiner,
        )

    def origin(self, scheduler_config: Mapping[str, Any], loras: LoraTexts = NO_LORAS) -> Origin:
        """What made the images, for their metadata. `scheduler_config` is that of the model."""
        models = [self.model, *([] if self.refiner is None else [self.refiner.model])]
        return Origin(
            model=self.model.name,
            vae=self.model.other_vae,
            scheduler=self.scheduler,
            scheduler_config=scheduler_config,
            has_safety_checker=any(one.offers_safety_checker for one in models),
            zeroes=self.model.capabilities.zeroes,
            layer=self.model.capabilities.layer,
            refiner=None if self.refiner is None else self.refiner.model.name,
            controlnets=self.model.controlnet_names,
            ip_adapters=self.model.ip_adapter_names,
            loras=loras,
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
