"""What pictures take and what fits: measured on small ones, and carried on in a straight line.

Activations of the U-Net and of the VAE grow with the pixels; attention's do too, as it is fused, and weights do not
grow. What the line leaves out is what a provider does differently for large tensors, so the result is an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sdrt.benchmark.configurations import Configuration, Rules
from sdrt.benchmark.measure import Model, open_pipeline
from sdrt.benchmark.memory import Watch, available_bytes, own_bytes
from sdrt.benchmark.nvidia import free_bytes, library, used_bytes
from sdrt.common.notices import Notify
from sdrt.families.capabilities import Capabilities
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.vae.autoencoder import LARGEST_WHOLE

__all__ = ["Estimate", "estimate", "probe"]

_SHARES = (1 / 4, 1 / 2)
"""Sides of the pictures that are made, over those that are asked about."""
_MOST_PIXELS = 512 * 512
"""Of a picture that is made, however large the one that is asked about."""
_MARGIN = 1.3
"""What fits, over what is estimated: ONNX Runtime's arenas took up to 30 % more when the large picture came first."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Peak memory in bytes over the pixels of a picture, of one configuration.

    `load` is that of loading; `points` are (pixels, peak) of pictures that were made, in their order; `available` what
    there was before, None where nothing tells.
    """

    load: int
    points: Sequence[tuple[int, int]]
    available: int | None

    def bytes_at(self, pixels: int) -> int:
        """The peak for pictures of so many pixels each."""
        (few, low), (many, high) = self.points[0], self.points[-1]
        return max(self.load, round(high + self._slope(few, low, many, high) * (pixels - many)))

    def most_pixels(self) -> float:
        """The largest that fits, with a margin; 0 where not even loading does, infinity where nothing tells."""
        if self.available is None:
            return math.inf
        (few, low), (many, high) = self.points[0], self.points[-1]
        slope = self._slope(few, low, many, high)
        room = self.available / _MARGIN
        if max(self.load, low) > room:
            return 0
        return math.inf if slope == 0 else max(0, many + (room - high) / slope)

    @staticmethod
    def _slope(few: int, low: int, many: int, high: int) -> float:
        return max(0.0, (high - low) / (many - few))


def probe(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """The `Estimate` of a configuration as a dict, measured in this process; empty where nothing tells of memory.

    Raises what the pipeline raises.
    """
    config = SessionConfig(provider=configuration.provider)
    with library():
        if PROVIDERS[config.name].device == "cuda":
            device = config.device_id
            before, available = used_bytes(device) or 0, free_bytes(device)

            def read() -> int | None:
                used = used_bytes(device)
                return None if used is None else max(0, used - before)

        else:
            available = available_bytes()

            def read() -> int | None:
                return own_bytes("self")

        if read() is None:
            return {}
        with Watch(read) as watch:
            if (
                configuration.vae_tiling is None
                and configuration.width * configuration.height > LARGEST_WHOLE
            ):
                configuration = replace(configuration, vae_tiling=_has_stages(model) or None)
            pipeline = open_pipeline(model, configuration, tell)
            pipeline.load()
        load, points = watch.peak or 0, []
        request = replace(configuration.request(), num_inference_steps=1)
        for width, height in _sizes(configuration, pipeline.model.capabilities):
            tell(f"measuring memory at {width}x{height}")
            small = replace(request, width=width, height=height, max_size=max(width, height))
            with Watch(read) as watch:
                for _ in pipeline.stream(small):
                    pass
            points.append((width * height, watch.peak or 0))
    return asdict(Estimate(load=load, points=points, available=available))


def _has_stages(model: Model) -> bool:
    return ModelFolder.open(Path(model[0])).stages("vae_decoder").is_file()


def _sizes(configuration: Configuration, capabilities: Capabilities) -> list[tuple[int, int]]:
    """Two that are not the same, of the shape that is asked about as far as the model's steps allow."""
    found = []
    most = min(1.0, math.sqrt(_MOST_PIXELS / (configuration.width * configuration.height)) / _SHARES[-1])
    for share in (share * most for share in _SHARES):
        width, height = (
            max(1, round(side * share / capabilities.size_step)) * capabilities.size_step
            for side in (configuration.width, configuration.height)
        )
        found.append((width, height))
    if found[0] == found[1]:
        found[1] = (found[0][0] + capabilities.size_step, found[0][1])
    return found


def estimate(found: Mapping[str, Any]) -> Estimate | None:
    """What `probe` gave, after a way through JSON."""
    if not found:
        return None
    points = [(int(pixels), int(peak)) for pixels, peak in found["points"]]
    return Estimate(load=found["load"], points=points, available=found["available"])
