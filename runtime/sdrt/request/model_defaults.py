"""The model's steps and guidance for a request that leaves them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdrt.families.capabilities import Capabilities
    from sdrt.request.derived import DerivedSettings

__all__ = ["runs_all_steps", "usual_values"]


def usual_values(request: DerivedSettings, capabilities: Capabilities, is_distilled: bool) -> dict[str, Any]:
    """The guidance scale, and the steps: the call's, else the model's."""
    defaults, steps = capabilities.defaults, request.num_inference_steps
    is_open = steps is None and request.sigmas is None and request.hires_steps is None
    own = defaults.timesteps if is_open and is_distilled else None
    if own is not None:
        steps = len(own)
    scale = request.guidance_scale
    return {
        "guidance_scale": defaults.guidance_of(is_masked=_is_masked(request)) if scale is None else scale,
        "num_inference_steps": defaults.num_inference_steps if steps is None else steps,
        "timesteps": request.timesteps if own is None else own,
    }


def runs_all_steps(
    request: DerivedSettings, timesteps: Sequence[int] | None, capabilities: Capabilities
) -> bool:
    """Whether the pipeline of latent consistency models reads the strength: in image to image without a mask."""
    return capabilities.is_consistency and timesteps is None and not _is_masked(request)


def _is_masked(request: DerivedSettings) -> bool:
    return request.mask_image is not None or request.outpaint is not None
