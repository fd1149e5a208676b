"""What a row of the table of samplers says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sdrt.schedulers import samplers
from sdrt.schedulers.discrete_schedule import build_discrete_schedule
from sdrt.schedulers.edm_schedule import build_edm_schedule
from sdrt.schedulers.evaluations import pndm_plan, skip_evaluations
from sdrt.schedulers.flow_schedule import build_flow_schedule
from sdrt.schedulers.noise_schedule import NoiseSchedule
from sdrt.schedulers.plan import Plan
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.table.spacings import ALL_SPACINGS

__all__ = ["BETA_KEYS", "CLIP_KEYS", "K_DEFAULTS", "LEVEL_KEYS", "SamplerRow"]

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
"""What every class of models trained on betas reads."""

LEVEL_KEYS = frozenset({"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"})
CLIP_KEYS = frozenset({"clip_sample", "clip_sample_range"})
K_DEFAULTS: Mapping[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012}
"""What diffusers' classes of k-diffusion's rules take for missing keys."""


@dataclass(frozen=True, kw_only=True)
class SamplerRow:
    """One sampler.

    Attributes:
        name: how users ask for it.
        display_name: A1111's name, written into images.
        class_name: the diffusers scheduler whose results it gives.
        own_levels: what it does with the config of that class: False where diffusers' class has levels of its own that
            are not Stable Diffusion's, so that only its rule is taken.
        aliases: other names; case, spaces and punctuation do not count, "+" does.
        order: of convergence, once a multistep rule has its past; 0 for consistency models, which do not converge.
        evaluations: U-Net calls in a step, but for the last.
        integrate: the integration rule.
        plan: at which noise levels the model is evaluated, from settings, the schedule that `schedule` makes of
            them, and a number of steps.
        skip: what is left of a plan that begins after some steps.
        spacings: names from SPACINGS that it takes.
        defaults: what that class takes for missing keys, where it differs from Settings.
        keys: what that class reads besides the keys that all read.
        ignores: of those, what it does not read.
        algorithm_type: what the config key of that name has to be, where several rows are of one class.
        orders: what `solver_order` may be; the last is meant where the sampler is asked for by name.
        synonyms: of other classes' values of a key, how diffusers' class reads them.
        allowed: keys of which this sampler takes fewer values than others do.
        eta: the share of fresh noise, or None where the caller decides.
        zero_snr_alpha: ᾱ in place of 0 at zero terminal SNR: diffusers' 2⁻²⁴, or where diffusers computes
            with 0 itself, as little as leaves float32 no difference.
        schedule: the noise schedule of the models that it is for, from settings and that ᾱ.
        on_flow: of models trained by flow matching, the row that takes this one's place; None where its rule does not
            hold there, because it adds noise or goes by log σ as if the variance exploded.
    """

    name: str
    display_name: str
    class_name: str
    integrate: Callable[[samplers.Denoise, samplers.Latents, Plan, samplers.SamplerOptions], samplers.States]
    plan: Callable[[Settings, Any, int], Plan]
    order: int
    skip: Callable[[Settings, Plan, int, int], Plan] = skip_evaluations
    aliases: tuple[str, ...] = ()
    own_levels: bool = True
    evaluations: int = 1
    spacings: tuple[str, ...] = ALL_SPACINGS
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    ignores: frozenset[str] = frozenset()
    algorithm_type: str | None = None
    orders: tuple[int, ...] = ()
    synonyms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    allowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    eta: float | None = 0.0
    zero_snr_alpha: float = 2.0**-24
    schedule: Callable[[Settings, float], NoiseSchedule] = build_discrete_schedule
    on_flow: str | None = None

    @property
    def is_for_edm(self) -> bool:
        """Whether it is for models trained as EDM trains them."""
        return self.schedule is build_edm_schedule

    @property
    def is_for_flow(self) -> bool:
        """Whether it is for models trained by flow matching."""
        return self.schedule is build_flow_schedule

    @property
    def takes_timesteps(self) -> bool:
        """Whether a call may choose the timesteps: PLMS's are even, and only betas have a table of them."""
        return self.schedule is build_discrete_schedule and self.plan is not pndm_plan

    @property
    def takes_sigmas(self) -> bool:
        """Whether a call may choose the noise levels: not where a rule goes by whole timesteps."""
        return "karras" in self.spacings

    @property
    def known_keys(self) -> frozenset[str]:
        """Every config key that this class reads."""
        return (frozenset({"num_train_timesteps"}) | BETA_KEYS | self.keys) - self.ignores
