"""A second model that takes over in the middle of a run: A1111's refiner, and diffusers' ensemble of expert denoisers.

One sampler makes the whole run, as in A1111: it keeps its past estimates and its noise, and only the model changes.
diffusers' second pipeline starts a new run in the middle. The result is the same for a sampler that keeps no past
estimates and takes one evaluation a step.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sdrt.common.messages import naming, refused, wrong_value
from sdrt.common.notices import Notices, Notify
from sdrt.errors import ModelError, RequestError
from sdrt.model_folder.folder import exists, expand
from sdrt.model_folder.model import Model
from sdrt.model_folder.resolve import resolve_model
from sdrt.model_folder.source import Beside
from sdrt.onnx.providers import PROVIDERS
from sdrt.request.fitted import FittedRequest
from sdrt.request.request import Request
from sdrt.request.two_model_checks import is_name
from sdrt.run.memory import ComponentCache
from sdrt.schedulers import NoiseSchedule, Plan, Scheduler, Step, resolve_scheduler
from sdrt.schedulers.parts import cutoff_of
from sdrt.vae.latent_scale import LatentScale

__all__ = ["Refiner", "Refiners", "Takeover", "takeover"]


# What can be given with a refiner, and the first model's options of the same names.
_BESIDE = ("config", "prediction_type")
_OWN_OPTIONS = re.compile(r"--(config|prediction-type)\b")
_EXPORT_OPTIONS = re.compile(r"--(vae|text-encoder) FILE$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Refiner:
    """A model that can take over a run.

    Attributes:
        cache: the model and its components in memory.
        noise_schedule: the one that the model was trained on. None for the run's own.
    """

    cache: ComponentCache
    noise_schedule: NoiseSchedule | None = None

    @property
    def model(self) -> Model:
        """The model folder."""
        return self.cache.model

    def check_fits(self, first: Model, schedule: NoiseSchedule) -> None:
        """Check that the latents of the model `first`, trained on `schedule`, are of the same kind as this model's.

        Raises:
            RequestError: they differ in channels, size, scale or noise.
        """
        found, wanted = _kind_of(self.model, self.noise_schedule or schedule), _kind_of(first, schedule)
        for (what, own), (_, theirs) in zip(found.items(), wanted.items(), strict=True):
            if own != theirs:
                raise RequestError.advised(
                    f"refiner {self.model.name} has latents of another kind than {first.name}: {what} is {own}, and "
                    f"{theirs} there",
                    "give a refiner for this model",
                    joint="; ",
                    argument="refiner",
                )


def _kind_of(model: Model, schedule: NoiseSchedule) -> dict[str, Any]:
    """The properties that two models must share to work on the same latents, by their names in messages."""
    capabilities, spec = model.capabilities, model.family.vae
    scale = LatentScale.of(model.component_config(spec.decoder), spec.decoder, spec, capabilities.task)
    return {
        "the number of channels": capabilities.latent_channels,
        "the number of pixels for each latent": capabilities.vae_scale_factor,
        "the scaling factor": scale.factor,
        "the shift": scale.shift,
        "the mean of each channel": scale.means or "none",
        "the deviation of each channel": scale.deviations or "none",
        "the noise schedule": type(schedule).__name__.removesuffix("NoiseSchedule").lower(),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Takeover:
    """Where in a pass a refiner takes over, and its own plan and settings for the pass.

    Attributes:
        refiner: the model.
        plan: the pass's plan, with the timesteps and the noise schedule of the refiner.
        own: the settings that have other values for the refiner, by name.
        evaluation: its first evaluation.
        cutoff: in an adaptive run, the timestep below which it takes over.
    """

    refiner: Refiner
    plan: Plan
    own: Mapping[str, Any]
    evaluation: int
    cutoff: float

    def begins_after(self, step: Step) -> bool:
        """Whether the evaluation after `step` is the refiner's."""
        if self.plan.adaptive and self.evaluation < 0:
            return self.plan.timestep(step.sigma) < self.cutoff
        return step.index + 1 >= self.evaluation

    @property
    def begins_at_once(self) -> bool:
        """Whether the refiner makes the whole pass."""
        return self.evaluation == 0

    def request(self, request: FittedRequest) -> FittedRequest:
        """The request of a pass, as the refiner makes it."""
        return replace(request, **self.own)


def takeover(
    refiner: Refiner, request: FittedRequest, plan: Plan, scheduler: Scheduler, own: Mapping[str, Any]
) -> Takeover:
    """Plan where in a pass the refiner takes over.

    Raises:
        RequestError: it would run no step.
    """
    cutoff = cutoff_of(request.refiner_switch, scheduler.settings.num_train_timesteps)
    return Takeover(
        refiner=refiner,
        plan=_seen_by(refiner, plan),
        own=own,
        evaluation=_first_evaluation(request, plan, scheduler, cutoff),
        cutoff=cutoff,
    )


def _first_evaluation(request: FittedRequest, plan: Plan, scheduler: Scheduler, cutoff: int) -> int:
    """The index of the refiner's first evaluation; -1 in an adaptive run, where the noise level decides."""
    switch = request.refiner_switch
    if request.refiner_switch_by_steps:
        total = plan.num_steps * scheduler.sampler.evaluations
        known = [index for index in range(total) if index / total >= switch]
    elif plan.adaptive:
        return -1
    else:
        known = [index for index, timestep in enumerate(plan.timesteps) if timestep < cutoff]
    if not known:
        raise refused(
            "refiner_switch",
            f"is {switch:g}, so the refiner would run none of the steps",
            "a smaller share, or more steps",
        )
    # The run ends before its last level only because of denoising_end.
    if not plan.adaptive and known[0] >= plan.num_evaluations:
        raise refused(
            "denoising_end",
            f"is {request.denoising_end:g}, so the refiner would run none of the steps",
            f"a larger share, or a refiner_switch smaller than {switch:g}",
        )
    return known[0]


def _seen_by(refiner: Refiner, plan: Plan) -> Plan:
    """The plan with the noise schedule of the refiner, and its timesteps if they differ at the same noise levels."""
    schedule = refiner.noise_schedule
    if schedule is None:
        return plan
    visited = np.array(plan.sigmas[:-1])
    if np.array_equal(schedule.timestep_at(visited), plan.noise_schedule.timestep_at(visited)):
        # The planned ones, which some spacings round.
        return replace(plan, noise_schedule=schedule)
    timesteps = () if plan.adaptive else tuple(schedule.timestep_at(visited).tolist())
    return replace(plan, noise_schedule=schedule, timesteps=timesteps)


def _beside(request: Request) -> Beside:
    return Beside(config=request.refiner_config, prediction_type=request.refiner_prediction_type)


def _wants_checker(request: Request) -> bool:
    """Whether a safety checker would look at the images: it does not look at latents."""
    return request.safety_checker and request.output_type != "latent"


def _refuse_beside(request: Request) -> None:
    """Raise `RequestError` if the request has settings for opening a refiner that is open already."""
    for name in _BESIDE:
        if getattr(request, f"refiner_{name}") is not None:
            raise RequestError.advised(
                f"refiner_{name} is given, but the refiner is a pipeline",
                f"leave it out, or open the pipeline with its own {name}",
                argument=f"refiner_{name}",
            )


@contextmanager
def _errors_of_refiner() -> Iterator[None]:
    """Within this block, errors name the refiner, and advise the refiner's own options.

    It has no options for another VAE or text encoder. The errors advise an export, which has them.
    """
    try:
        with naming("refiner"):
            yield
    except (ModelError, RequestError) as error:
        text, facts = str(error), vars(error)
        for name in _BESIDE:
            if text.startswith((f"refiner: {name} ", f"refiner: {name}:")):
                text, facts = (
                    f"refiner_{text.removeprefix('refiner: ')}",
                    facts | {"argument": f"refiner_{name}"},
                )
        text = _OWN_OPTIONS.sub(r"--refiner-\1", text)
        if _EXPORT_OPTIONS.search(text):
            text = f"{text} to sdrt export, and pass the exported folder as the refiner"
        raise type(error)(text, **facts) from error


class Refiners:
    """The refiners that calls of a pipeline name. Only the last one stays in memory.

    Args:
        first: the pipeline's own model, and its components in memory.
        notify: receives messages for the user.
        verify: whether to check the hashes of the files before they are loaded.
    """

    def __init__(self, first: ComponentCache, notify: Notify | None, *, verify: bool = True) -> None:
        self._first, self._notify, self._verify = first, notify, verify
        self._named: dict[tuple[str, Beside, bool], Refiner] = {}
        self._lock = threading.Lock()

    def of(self, request: Request) -> Refiner | None:
        """The model that the setting `refiner` of a request contains or names.

        Raises:
            ModelError, RequestError: see `named`; or it is a pipeline of another library.
        """
        given = request.refiner
        if given is None:
            return None
        if is_name(given):
            with _errors_of_refiner():
                return self.named(os.fspath(given), _beside(request), safety_checker=_wants_checker(request))
        _refuse_beside(request)
        cache = getattr(given, "_cache", None)
        if not isinstance(cache, ComponentCache):
            raise wrong_value("refiner", given, "a model's name, or a StableDiffusionPipeline of sdrt")
        own = cache is self._first
        return Refiner(cache=cache, noise_schedule=None if own else given.scheduler.noise_schedule)

    def named(
        self,
        name: str,
        beside: Beside = Beside(),  # noqa: B008 - frozen
        *,
        safety_checker: bool = True,
    ) -> Refiner:
        """Open the model `name` as a refiner, with the settings of the first model and what is given `beside` it.

        Without `safety_checker`, its own is not downloaded, and need not be complete. It is opened again for a call
        that wants it.

        Raises:
            ModelError, RequestError: see `resolve_model`.
        """
        with self._lock:
            config = self._first.config
            found = self._known(name, beside, safety_checker)
            if found is None:
                found = self._opened(name, beside, safety_checker)
                self._named[name, beside, safety_checker] = found
            if found.cache is not self._first:
                found.cache.configure(config)
            return found

    def _known(self, name: str, beside: Beside, safety_checker: bool) -> Refiner | None:
        """One that was opened before, with its safety checker if that is wanted."""
        known = (self._named.get((name, beside, wanted)) for wanted in (True, False))
        for found in filter(None, known):
            if found.cache is self._first or not (safety_checker and found.model.without_checker):
                return found
        return None

    def _opened(self, name: str, beside: Beside, safety_checker: bool) -> Refiner:
        # The first model is open already. Its file alone may lack what was given with it.
        if not beside.given() and self._is_first(expand(name)):
            return Refiner(cache=self._first)
        row = PROVIDERS[self._first.config.name]
        model = resolve_model(
            name,
            beside=beside,
            target=row.target,
            in_memory=row.takes_memory,
            notify=self._notify,
            safety_checker=safety_checker,
        )
        if not beside.given() and self._is_first(model.path):
            return Refiner(cache=self._first)
        schedule = resolve_scheduler(None, model.scheduler_config).noise_schedule
        notices = Notices(self._notify)
        cache = ComponentCache(model, self._first.config, notices, verify=self._verify)
        return Refiner(cache=cache, noise_schedule=schedule)

    def _is_first(self, path: Path) -> bool:
        return exists(path) and path.resolve() == self._first.model.path.resolve()

    def keep_only(self, used: Refiner | None) -> None:
        """Free the sessions of every named refiner but `used`."""
        for one in list(self._named.values()):
            if one is not used and one.cache is not self._first:
                one.cache.close()
