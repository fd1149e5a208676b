"""The model and the settings of a pipeline, and the metadata that an image gets from them and its request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.images.metadata import Parameters
from sdrt.request.control_texts import UNIT_LABELS
from sdrt.request.labels import settings_text
from sdrt.request.request import Request
from sdrt.request.setting import settings_of
from sdrt.run.control_labels import control_texts
from sdrt.run.lora_texts import NO_LORAS, LoraTexts
from sdrt.schedulers import SPACING_LABELS, Scheduler, resolve_scheduler, schedule_type_of

__all__ = ["Origin"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """The model and the pipeline's settings at the start of a run."""

    model: str
    """The model's name."""
    vae: str | None = None
    """The name of the VAE, if it is not the model's own."""
    scheduler: Scheduler
    """The scheduler of the call, without the request's own `timesteps` or `sigmas`."""
    scheduler_config: Mapping[str, Any]
    """The content of the model's `scheduler_config.json`."""
    vae_tiling: bool | None = None
    """The pipeline's `vae_tiling`."""
    refiner: str | None = None
    """The name of the model that takes over in the middle, if there is one."""
    has_safety_checker: bool = False
    """Whether the model or the refiner has a safety checker, which a request can turn off."""
    zeroes: bool = False
    """Whether an empty negative prompt differs from a missing one."""
    layer: int = 0
    """How many layers the text encoders' usual layer is before the last one."""
    controlnets: tuple[str, ...] = ()
    """The names of the ControlNets."""
    ip_adapters: tuple[str, ...] = ()
    """The names of the IP-Adapters."""
    embeddings: tuple[str, ...] = ()
    """The names of the files from which textual inversions were read."""
    loras: LoraTexts = NO_LORAS
    """What to say of LoRAs."""

    def parameters(
        self,
        request: Request,
        index: int,
        size: tuple[int, int],
        *,
        batch_size: int,
        flagged: bool | None = None,
    ) -> Parameters:
        """Return the metadata of image `index`: how it was made.

        Args:
            request: the request, completed by `fit`.
            index: the image's index among the images of the request.
            size: the image's width and height in pixels.
            batch_size: the number of images that were denoised at once.
            flagged: whether the safety checker flagged the image; None if it did not look.
        """
        which = index // request.num_images_per_prompt
        values = self._of_request(request) | self._of_scheduler() | self._of_model()
        # As in A1111, the size of the first pass. It is smaller than the image's with hires_scale or a cropped mask.
        values["size"] = size if request.outpaint is not None else (request.width, request.height)
        values["seed"] = request.seeds[index]
        values["nsfw_content_detected"] = flagged
        values["batch_size"] = batch_size if batch_size > 1 else None
        negative = None if request.negative_prompt is None else request.negative_prompts[which]
        values["empty_negative_prompt"] = True if self.zeroes and negative == "" else None
        if request.prompt_2 is not None:
            values["prompt_2"] = request.prompts_2[which]
        if request.negative_prompt_2 is not None:
            values["negative_prompt_2"] = request.negative_prompts_2[which]
        return Parameters(
            prompt=self.loras.prompt(request.prompts[which] if request.prompts else ""),
            negative_prompt=negative or "",
            settings=_before_version(settings_text(values), control_texts(request, self.controlnets)),
        )

    def _of_request(self, request: Request) -> dict[str, Any]:
        """Return the request's settings for the metadata, by name. Settings without an effect are left out."""
        values = {}
        for row in settings_of(type(request)):
            value = getattr(request, row.name)
            matters = not row.only_with or any(getattr(request, one) is not None for one in row.only_with)
            if row.label is None or row.label.name in UNIT_LABELS:
                continue  # what ControlNets do is one text for each
            if matters and (row.label.always or value != row.default):
                values[row.name] = value
        if request.hires_scale is not None or request.denoising_start is not None:
            values.pop("strength", None)
        if not self.has_safety_checker:
            values.pop("safety_checker", None)
        if not self.scheduler.reads_eta:
            values.pop("eta", None)
        if request.hires_scale is not None and request.hires_scheduler is not None:
            other = resolve_scheduler(request.hires_scheduler, self.scheduler_config)
            # The name includes the spacing, which A1111 reads too.
            spacing = SPACING_LABELS.get(other.spacing, other.spacing) if other.sampler.spacings else ""
            values["hires_scheduler"] = f"{other.sampler.display_name} {spacing}".rstrip()
        # A clip_skip of 0 means none. Metadata count from the last layer.
        values["clip_skip"] = request.clip_skip + self.layer if request.clip_skip else None
        # If the call gave latents, the seed cannot reproduce them.
        if request.ip_adapter_image is not None or request.ip_adapter_image_embeds is not None:
            values["ip_adapters"] = ", ".join(self.ip_adapters)
            values["ip_adapter_masked"] = True if request.ip_adapter_masks is not None else None
        return values | {"rng": "CPU" if request.latents is None else None}

    def _of_scheduler(self) -> dict[str, Any]:
        scheduler = self.scheduler
        schedule_type, exact = schedule_type_of(scheduler)
        return {
            "scheduler": scheduler.sampler.display_name,
            "schedule_type": schedule_type,
            "scheduler_config": scheduler.source,
            "spacing": None if exact else scheduler.spacing if schedule_type else self._unusual_spacing(),
        }

    def _unusual_spacing(self) -> str | None:
        """Return the spacing, or None if the scheduler has it anyway for this model."""
        spacing = self.scheduler.spacing
        try:
            usual = resolve_scheduler(self.scheduler.name, self.scheduler_config).spacing
        except (RequestError, UnsupportedModelError):
            # The scheduler cannot be chosen by name for this model, only by a config.
            usual = None
        return None if spacing == usual else spacing

    def _of_model(self) -> dict[str, Any]:
        from sdrt.common.version import __version__

        return {
            "model": self.model,
            "vae": self.vae,
            "refiner": self.refiner,
            "vae_tiling": self.vae_tiling,
            "embeddings": ", ".join(self.embeddings) or None,
            "lora_hashes": self.loras.hashes,
            "version": f"sdrt {__version__}",
        }


def _before_version(settings: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The labelled texts with `more` of them. The version stays the last one."""
    version = {name: text for name, text in settings.items() if name == "Version"}
    return {**{name: text for name, text in settings.items() if name not in version}, **more, **version}
