"""A scheduler's options, read from its config by :mod:`~sdrt.schedulers.config`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A scheduler's options, named as in diffusers. An option that a class does not have keeps the default here.

    `levels` is a name from `spacing.LEVELS`, or None if the spacing chooses timesteps. It stands for diffusers'
    `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas` and `sigma_schedule`, and for spacings that
    diffusers lacks. `timesteps`, or `sigmas` including the final one, are those that a call chose instead of a spacing.
    `strength` is the share of the distilled steps that LCM and TCD choose theirs from.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    levels: str | None = None
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    skip_prk_steps: bool = True
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    corrector_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    disable_corrector: tuple[int, ...] = ()
    lambda_min_clipped: float = float("-inf")
    original_inference_steps: int = 50
    strength: float = 1.0
    timestep_scaling: float = 10.0
    sigma_data: float = 0.5
    shift: float = 1.0
