"""A request that was fitted to a model, with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.adapters.adaptation import NO_ADAPTATION, Adaptation
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt.request.controls import Control
from sdrt.request.derived import DerivedSettings
from sdrt.request.image_prompts import ImagePrompt, image_inputs
from sdrt.request.request import Request

__all__ = ["FittedRequest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedRequest(DerivedSettings):
    """What one pass makes: the settings of a request, with every default decided.

    `fit` makes it for a model. A task of several passes derives one from it for each pass, with
    `dataclasses.replace`. It is not a `Request`: nothing checks it again, and a pipeline does not take it.

    What is None now is absent, such as `mask_image`, or has no meaning for the model's task, such as `noise_level`.
    """

    completed: Request
    """The request, completed with the values that the model decided. It makes the same images again."""
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    seed: int | tuple[int, ...]
    strength: float
    hires_steps: int
    tile_overlap: int
    zero_negative: bool = False
    """Whether the unconditional embeddings are zeros, because there is no negative prompt."""
    steps_before: int = 0
    """The steps of the pass before this one, if both draw the same image. Prompt editing counts on from them."""
    guidance_width: int = 0
    """The width of the embedded guidance scale that the denoiser takes. 0 if it takes none."""
    controls: tuple[Control, ...] = ()
    """What each ControlNet and T2I-Adapter does. Empty without control images."""
    image_prompts: tuple[ImagePrompt, ...] = ()
    """What each IP-Adapter sees. Empty without image prompts."""
    runs_all_steps: bool = False
    """Whether image to image runs all steps, from the noise of the strength, instead of a share of them."""
    adaptation: Adaptation = NO_ADAPTATION
    """The adapters that change the model."""

    @property
    def guided(self) -> bool:
        """Whether to compute the unconditional half too. The rule is that of diffusers."""
        image_scale = self.image_guidance_scale
        return self.outer_guidance_scale > 1.0 and (image_scale is None or image_scale >= 1.0)

    @property
    def outer_guidance_scale(self) -> float:
        """The guidance scale between the unconditional and the conditional half. 1 if the denoiser guides itself."""
        return 1.0 if self.guidance_width else self.guidance_scale

    @property
    def num_skipped_steps(self) -> int:
        """How many steps are skipped because the run starts from an image."""
        return 0 if self.runs_all_steps else super().num_skipped_steps

    @property
    def is_controlled(self) -> bool:
        """Whether a ControlNet or T2I-Adapter has any effect. If none has, the usual graph makes the same image."""
        return any(control.scale for control in self.controls)

    @property
    def denoiser_inputs(self) -> MoreInputs:
        """What the denoiser takes beside its usual inputs."""
        # What the model has counts, not what the request uses: exports have this one graph.
        kinds = {control.is_adapter for control in self.controls} if self.is_controlled else set()
        images = image_inputs(self.image_prompts)
        return MoreInputs(residuals=False in kinds, features=True in kinds, images=images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def num_pixels(self) -> int:
        """The number of pixels of all images together."""
        return self.num_images * self.height * self.width
