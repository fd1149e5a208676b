"""The settings that a model uses if a call gives none, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdrt.families.family import Family
from sdrt.families.few_steps import CONSISTENCY_SCHEDULERS, FewSteps, few_steps_of
from sdrt.families.specs import Task

__all__ = ["Defaults"]

# Luo et al. 2023 (arXiv:2310.04378), and the defaults of diffusers' pipelines for these models.
_CONSISTENCY_STEPS, _CONSISTENCY_GUIDANCE = 4, 8.5


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a call uses for the settings that it does not give.

    Attributes:
        guidance_scale: the guidance scale.
        masked_guidance_scale: the same for a call with a mask, if it differs.
        num_inference_steps: the number of steps.
        timesteps: the timesteps of the model's own scheduler, if the call asks for no steps; None for the spacing's.
        origin: where they come from, in words; empty for diffusers' defaults.
        advice: what is wrong with the model's own scheduler, and the remedy; empty if nothing is.
    """

    guidance_scale: float
    masked_guidance_scale: float | None = None
    num_inference_steps: int = 50
    timesteps: tuple[int, ...] | None = None
    origin: str = ""
    advice: str = ""

    @classmethod
    def of(
        cls,
        task: Task,
        family: Family,
        *,
        index: Mapping[str, Any],
        denoiser: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        names: Sequence[str | None],
    ) -> Defaults:
        """Find the defaults of a model in its files and its names.

        The U-Net's inputs take precedence over the names, and the names over the scheduler's class.

        Args:
            task: the task of the model.
            family: its family.
            index: its `model_index.json`.
            denoiser: the denoiser's `config.json`.
            scheduler: its `scheduler_config.json`.
            names: its names, the most certain one first.
        """
        usual = cls(guidance_scale=task.guidance_scale, masked_guidance_scale=task.masked_guidance_scale)
        class_name = scheduler.get("_class_name")
        if denoiser.get("time_cond_proj_dim") or index.get("_class_name") in family.consistency_pipelines:
            return replace(
                usual,
                num_inference_steps=_CONSISTENCY_STEPS,
                guidance_scale=_CONSISTENCY_GUIDANCE,
                masked_guidance_scale=None,
                origin="it is a latent consistency model",
            )
        if row := few_steps_of(*names, index.get("_name_or_path")):
            return cls.for_few_steps(row, scheduler)
        if isinstance(class_name, str) and class_name in CONSISTENCY_SCHEDULERS:
            steps, guidance, _ = CONSISTENCY_SCHEDULERS[class_name]
            return replace(
                usual,
                num_inference_steps=steps,
                guidance_scale=guidance,
                masked_guidance_scale=None,
                origin=f"its scheduler is {class_name}, which is for distilled models",
            )
        return usual

    def guidance_of(self, *, is_masked: bool) -> float:
        """The guidance scale of a call with or without a mask."""
        own = self.masked_guidance_scale
        return own if is_masked and own is not None else self.guidance_scale

    @classmethod
    def for_few_steps(cls, row: FewSteps, scheduler: Mapping[str, Any]) -> Defaults:
        """The defaults of a distilled model, whose own scheduler has this config."""
        return cls(
            num_inference_steps=row.num_inference_steps,
            guidance_scale=row.guidance_scale,
            timesteps=row.timesteps,
            origin=f"its name says that it is {row.title} ({row.source})",
            advice=_advice(row, scheduler),
        )

    def with_recorded(self, recorded: Mapping[str, Any]) -> Defaults:
        """These defaults, replaced by those that a manifest records."""
        known = {key: recorded[key] for key in ("guidance_scale", "num_inference_steps") if key in recorded}
        if "guidance_scale" in known:
            known |= {"guidance_scale": float(known["guidance_scale"]), "masked_guidance_scale": None}
        if "num_inference_steps" in recorded:
            # The number of steps that the timesteps were for.
            known["timesteps"] = None
        if "timesteps" in recorded:
            known["timesteps"] = tuple(recorded["timesteps"])
        return replace(self, **known, origin=recorded.get("origin", self.origin))

    def recorded(self) -> dict[str, Any]:
        """The entries for a manifest. Empty if they are diffusers' defaults."""
        if not self.origin:
            return {}
        entries: dict[str, Any] = {
            "guidance_scale": self.guidance_scale,
            "num_inference_steps": self.num_inference_steps,
            "origin": self.origin,
        }
        return entries | ({} if self.timesteps is None else {"timesteps": list(self.timesteps)})


def _advice(row: FewSteps, scheduler: Mapping[str, Any]) -> str:
    """Say what is wrong with the scheduler in a distilled model's files. Empty if nothing is.

    A scheduler that chooses its steps among distilled ones is always accepted.
    """
    own = scheduler.get("_class_name")
    if own in CONSISTENCY_SCHEDULERS:
        return ""
    trained = str(row.scheduler.get("_class_name"))
    if trained in CONSISTENCY_SCHEDULERS:
        name = trained.removesuffix("Scheduler")
        return f"its own scheduler is {own}, but {row.title} was trained for {name}; use --scheduler {name.lower()}"
    for key, usual, remedy in (
        ("timestep_spacing", None, "use --spacing {}"),
        ("prediction_type", "epsilon", "correct the file"),
    ):
        wanted, found = row.scheduler.get(key), scheduler.get(key, usual)
        if wanted is not None and found != wanted:
            return (
                f"its scheduler_config.json has {key} {found!r}, but {row.title} was trained for {wanted!r}; "
                f"{remedy.format(wanted)}"
            )
    return ""
