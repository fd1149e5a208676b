"""Estimates the memory that images take, and which sizes fit: measures small images and extrapolates linearly.

The activations of the U-Net and the VAE grow with the number of pixels. Those of attention do too, because it is fused.
Weights do not grow. A provider may treat large tensors differently, so the result is an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sdrt.benchmark.configurations import Configuration, Rules
from sdrt.benchmark.measure import Model, open_pipeline, session_config
from sdrt.benchmark.memory import Watch, available_bytes, own_bytes, reserved_bytes
from sdrt.benchmark.nvidia import free_bytes, library, used_bytes
from sdrt.common.limits import memory_limit
from sdrt.common.notices import Notify
from sdrt.families.capabilities import Capabilities
from sdrt.model_folder.graph_kind import STAGES_GRAPH
from sdrt.onnx.providers import PROVIDERS
from sdrt.vae.autoencoder import LARGEST_WHOLE

__all__ = ["Estimate", "estimate", "probe"]

_SHARES = (1 / 4, 1 / 2)
"""Sides of the measured images, as shares of the sides in question."""
_MOST_PIXELS = 512 * 512
"""Pixels of a measured image at most, whatever the size in question."""
_MARGIN = 1.3
"""Safety factor for what fits: ONNX Runtime's arenas took up to 30 % more when the large image came first."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Peak memory of one configuration, in bytes, by the pixels of an image. Under a `MemoryLimit`, what was reserved.

    `load` is the peak of loading. `points` are (pixels, peak) of the measured images, in order. `available` is what was
    free before, None if the system does not report it. `is_reserved` says that all of these are what a process has
    reserved under a `MemoryLimit`.
    """

    load: int
    points: Sequence[tuple[int, int]]
    available: int | None
    is_reserved: bool = False

    def bytes_at(self, pixels: int) -> int:
        """The peak for images of `pixels` pixels each."""
        (few, low), (many, high) = self.points[0], self.points[-1]
        return max(self.load, round(high + self._slope(few, low, many, high) * (pixels - many)))

    def most_pixels(self) -> float:
        """Pixels of the largest image that fits, with a margin. 0 if loading does not fit, infinity if unknown."""
        if self.available is None:
            return math.inf
        (few, low), (many, high) = self.points[0], self.points[-1]
        slope = self._slope(few, low, many, high)
        # Libraries and stacks reserve much, but always the same.
        fixed = min(self.load, self.available) if self.is_reserved else 0
        room = fixed + (self.available - fixed) / _MARGIN
        if max(self.load, low) > room:
            return 0
        return math.inf if slope == 0 else max(0, many + (room - high) / slope)

    @staticmethod
    def _slope(few: int, low: int, many: int, high: int) -> float:
        return max(0.0, (high - low) / (many - few))


def probe(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """Measure the `Estimate` of a configuration in this process. Returns it as a dict.

    The dict is empty if the system does not report memory. Raises the errors of the pipeline.
    """
    config, limit = session_config(configuration), None
    with library():
        if PROVIDERS[config.name].device == "cuda":
            device = config.device_id
            before, available = used_bytes(device) or 0, free_bytes(device)

            def read() -> int | None:
                used = used_bytes(device)
                return None if used is None else max(0, used - before)

        elif (limit := memory_limit()) is not None:
            # What is reserved counts, whether it is used or not.
            available = limit.amount

            def read() -> int | None:
                return reserved_bytes(limit)

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
    return asdict(Estimate(load=load, points=points, available=available, is_reserved=limit is not None))


def _has_stages(model: Model) -> bool:
    opened = model.open("cpu")
    return opened.graph(opened.family.vae.decoder, STAGES_GRAPH) is not None


def _sizes(configuration: Configuration, capabilities: Capabilities) -> list[tuple[int, int]]:
    """Two different sizes of the shape in question, as far as the model's size step allows."""
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
    """The `Estimate` from the result of `probe`, which came through JSON. None for an empty one."""
    if not found:
        return None
    points = [(int(pixels), int(peak)) for pixels, peak in found["points"]]
    return Estimate(**dict(found) | {"points": points})
