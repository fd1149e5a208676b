"""What made the images of a run besides its request, and what their metadata say of the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.images.metadata import Parameters
from sdrt.request.labels import settings_text
from sdrt.request.request import Request
from sdrt.request.setting import settings_of
from sdrt.schedulers import SPACING_LABELS, Scheduler, resolve_scheduler

__all__ = ["Origin"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """The model and the pipeline's settings, as a run began with them."""

    model: str
    """Its name."""
    takes_strength: bool
    """Whether the model's kind has a strength."""
    scheduler: Scheduler
    """As it was asked for: without a request's own `timesteps` or `sigmas`."""
    scheduler_config: Mapping[str, Any]
    """The model's own."""
    vae_tiling: bool | None
    embeddings: tuple[str, ...]
    """Names of the files that textual inversions were read from."""

    def parameters(
        self, request: Request, index: int, size: tuple[int, int], *, batch_size: int
    ) -> Parameters:
        """How image `index` of a request that `fit` has filled in was made.

        `size` is the image's width and height, in pixels; `batch_size` counts the images denoised at once.
        """
        which = index // request.num_images_per_prompt
        values = self._of_request(request) | self._of_scheduler() | self._of_model()
        # What is worked on first, as in A1111: the part of an image, what is enlarged later, or put into another.
        values["size"] = size if request.outpaint is not None else (request.width, request.height)
        values["seed"] = request.seeds[index]
        values["batch_size"] = batch_size if batch_size > 1 else None
        return Parameters(
            prompt=request.prompts[which] if request.prompts else "",
            negative_prompt="" if request.negative_prompt is None else request.negative_prompts[which],
            settings=settings_text(values),
        )

    def _of_request(self, request: Request) -> dict[str, Any]:
        """The request's settings that have a label, by their names; those that say nothing are left out."""
        values = {}
        for row in settings_of(type(request)):
            value = getattr(request, row.name)
            matters = not row.only_with or any(getattr(request, one) is not None for one in row.only_with)
            if row.label is not None and matters and (row.label.always or value != row.default):
                values[row.name] = value
        if request.hires_scale is not None or not self.takes_strength:
            values.pop("strength", None)
        if not self.scheduler.reads_eta:
            values.pop("eta", None)
        # To skip no layer is to say nothing.
        values["clip_skip"] = request.clip_skip or None
        # Latents that were given come from no generator that the seed would start again.
        return values | {"rng": "CPU" if request.latents is None else None}

    def _of_scheduler(self) -> dict[str, Any]:
        scheduler = self.scheduler
        return {
            "scheduler": scheduler.display_name,
            "scheduler_config": scheduler.source,
            "spacing": self._spacing(),
        }

    def _spacing(self) -> str | None:
        """The spacing, where the name written beside it does not say it."""
        spacing = self.scheduler.spacing
        try:
            usual = resolve_scheduler(self.scheduler.name, self.scheduler_config).spacing
        except (RequestError, UnsupportedModelError):
            # The model does not take it by its name, only as a config.
            usual = None
        return None if spacing in (*SPACING_LABELS, usual) else spacing

    def _of_model(self) -> dict[str, Any]:
        from sdrt.common.version import __version__

        return {
            "model": self.model,
            "vae_tiling": self.vae_tiling,
            "embeddings": ", ".join(self.embeddings) or None,
            "version": f"sdrt {__version__}",
        }
