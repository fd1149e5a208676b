"""A row of the table of samplers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sdrt.schedulers import samplers
from sdrt.schedulers.config import NOISE_ALGORITHMS
from sdrt.schedulers.discrete_schedule import build_discrete_schedule
from sdrt.schedulers.edm_schedule import build_edm_schedule
from sdrt.schedulers.evaluations import consistency_plan, dpm_plan, pndm_plan, skip_evaluations
from sdrt.schedulers.flow_schedule import build_flow_schedule
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.table.spacings import ALL_SPACINGS, SPACING_LABELS, SPACINGS

__all__ = [
    "BETA_KEYS",
    "CLIP_KEYS",
    "K_DEFAULTS",
    "LEVEL_KEYS",
    "SPACING_WORDS",
    "THRESHOLD_KEYS",
    "SamplerRow",
    "plain_name",
]

BETA_KEYS = frozenset(
    {
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "prediction_type",
        "timestep_spacing",
        "steps_offset",
    }
)
"""The keys that every class for models trained on betas reads."""

THRESHOLD_KEYS = frozenset({"thresholding", "dynamic_thresholding_ratio", "sample_max_value"})
LEVEL_KEYS = frozenset({"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"})
CLIP_KEYS = frozenset({"clip_sample", "clip_sample_range"})
K_DEFAULTS: Mapping[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012}
"""The defaults of diffusers' classes for k-diffusion's rules."""


def plain_name(name: str) -> str:
    """A name without what does not matter in it: case, spaces, and punctuation other than "+"."""
    return re.sub(r"[^a-z0-9+]", "", name.lower())


# ComfyUI's and Forge's names, beside A1111's.
_OTHER_SPACING_NAMES = {"alignyoursteps11": "align_your_steps", "ddim": "ddim_uniform"}
_SPACING_NAMES = _OTHER_SPACING_NAMES | {
    plain_name(name): key for key in SPACINGS for name in (key, SPACING_LABELS.get(key, key))
}
SPACING_WORDS = tuple(sorted({*_SPACING_NAMES, "automatic", "uniform"}, key=len, reverse=True))
"""What may follow a sampler's name, plain, the longest first, because "SGM Uniform" ends in "Uniform"."""


@dataclass(frozen=True, kw_only=True)
class SamplerRow:
    """One sampler.

    Attributes:
        name: how users ask for it.
        display_name: A1111's name, which metadata contain.
        class_name: the diffusers scheduler that has the same results; empty if there is none.
        own_levels: whether it reads a config of that class. False for a class whose noise levels are not Stable
            Diffusion's, so that only its rule is used.
        aliases: other names. Case, spaces and punctuation do not matter, but "+" does.
        order: the order of convergence, after the first steps of a multistep rule. 0 for consistency models, which do
            not converge.
        evaluations: the number of U-Net calls in each step except the last.
        integrate: the integration rule.
        plan: makes the plan of a run, from settings, the noise schedule that `schedule` made, and a number of steps.
        skip: makes the plan of a run that begins after some steps.
        spacings: the names from SPACINGS that it supports.
        automatic: the spacing that A1111's schedule type Automatic means for it; None if that is Uniform.
        defaults: the class's defaults for missing keys, where they differ from those of Settings.
        keys: the config keys that the class reads besides `num_train_timesteps` and BETA_KEYS.
        ignores: which of BETA_KEYS the class does not read.
        algorithm_type: the value of that config key which means this row, where one class has several rows.
        solver_type: the same of `solver_type`.
        orders: the values of `solver_order`; the last is the one that the sampler's name means.
        synonyms: how the class reads values of a key that only other classes have.
        allowed: the values of a key, if this sampler supports fewer values than others do.
        eta: the share of fresh noise; None if the caller decides.
        zero_snr_alpha: the ᾱ that replaces 0 at zero terminal SNR: 2⁻²⁴ as in diffusers, or, where diffusers computes
            with 0 itself, a value too small to make a difference in float32.
        schedule: makes the noise schedule of the models that it is for, from settings and that ᾱ.
        on_flow: the row that replaces this one for a model trained by flow matching. None if there is no such row: the
            rule adds noise, uses log σ in a way that holds only for variance-exploding states, or needs trained
            timesteps.
        needs_unconditional: whether it uses the estimate without the prompt beside the guided one.
        guidance_share: the factor of the guidance scale.
        rises: whether a run returns to higher noise levels.
        chooses_steps: whether it chooses its steps as it goes, so that their number is unknown before.
    """

    name: str
    display_name: str
    class_name: str
    integrate: Callable[[samplers.Denoise, samplers.Latents, Plan, samplers.SamplerOptions], Iterator[Any]]
    plan: Callable[[Settings, Any, int], Plan]
    order: int
    skip: Callable[[Settings, Plan, int, int], Plan] = skip_evaluations
    aliases: tuple[str, ...] = ()
    own_levels: bool = True
    evaluations: int = 1
    spacings: tuple[str, ...] = ALL_SPACINGS
    automatic: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    ignores: frozenset[str] = frozenset()
    algorithm_type: str | None = None
    solver_type: str | None = None
    orders: tuple[int, ...] = ()
    synonyms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    allowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    eta: float | None = 0.0
    zero_snr_alpha: float = 2.0**-24
    schedule: Callable[[Settings, float], NoiseSchedule] = build_discrete_schedule
    on_flow: str | None = None
    needs_unconditional: bool = False
    guidance_share: float = 1.0
    rises: bool = False
    chooses_steps: bool = False

    @property
    def is_for_edm(self) -> bool:
        """Whether it is for models trained as in EDM."""
        return self.schedule is build_edm_schedule

    @property
    def integrates_noise(self) -> bool:
        """Whether it is one of the first DPM-Solvers, which integrate ε."""
        return self.algorithm_type in NOISE_ALGORITHMS

    @property
    def is_for_flow(self) -> bool:
        """Whether it is for models trained by flow matching."""
        return self.schedule is build_flow_schedule

    def spacing_named(self, name: str) -> str:
        """The key of SPACINGS that a name means for this sampler: case, spaces and punctuation do not matter.

        A name that is unknown comes back as it is, in lower case.
        """
        key = plain_name(name)
        if key == "automatic" and self.automatic is not None:
            return self.automatic
        if key in ("automatic", "uniform"):
            # DPM-Solver's classes leave the last timestep of linspace out, which A1111's Uniform visits.
            return "normal" if self.plan is dpm_plan else "linspace"
        return _SPACING_NAMES.get(key, name.strip().lower())

    @property
    def takes_timesteps(self) -> bool:
        """Whether a call may choose the timesteps. PLMS needs even ones; only models trained on betas have a table."""
        on_betas = self.schedule is build_discrete_schedule and self.plan is not pndm_plan
        return on_betas and not self.rises and (bool(self.spacings) or self.class_name != "")

    @property
    def is_distilled(self) -> bool:
        """Whether it chooses its steps among those that a model was distilled on, so that it has no spacings."""
        return self.plan is consistency_plan

    @property
    def takes_sigmas(self) -> bool:
        """Whether a call may choose the noise levels. A rule that uses whole timesteps does not allow it."""
        return "karras" in self.spacings and not self.rises

    @property
    def known_keys(self) -> frozenset[str]:
        """Every config key that this class reads."""
        return (frozenset({"num_train_timesteps"}) | BETA_KEYS | self.keys) - self.ignores
