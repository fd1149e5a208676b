"""The memory check of `sdrt doctor`: how much images of a size take, and which sizes fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdrt.cli.doctor.check_result import Finding, Status
from sdrt.cli.models.summary import human_size
from sdrt.common.extras import install_command
from sdrt.common.notices import Notify
from sdrt.errors import SdrtError

if TYPE_CHECKING:
    from sdrt.benchmark.capacity import Estimate
    from sdrt.benchmark.configurations import Configuration

__all__ = ["check_memory"]


def check_memory(
    model: str, provider: str, sizes: Sequence[tuple[int, int]], batch: int, tell: Notify, **options: Any
) -> Iterator[Finding]:
    """Yield a finding for each size. `tell` receives progress messages, and `options` go to `from_pretrained`."""
    from sdrt.benchmark.configurations import Asked, expand
    from sdrt.pipeline import StableDiffusionPipeline

    try:
        pipeline = StableDiffusionPipeline.from_pretrained(model, provider=provider, **options)
        asked = Asked(
            sizes=tuple(sizes),
            batches=(batch,),
            providers=(provider,),
            steps=1,
            allow_fallback=options.get("allow_fallback", False),
            provider_options=options.get("provider_options") or {},
            low_vram=False,
            max_size=max(side for size in sizes for side in size),
        )
        for configuration, _ in expand(asked, lambda provider, threads: pipeline):
            yield _finding((str(pipeline.model.path.absolute()), pipeline.model.name), configuration, tell)
    except SdrtError as error:
        yield Finding(name="memory", detail=str(error), status=Status.ERROR, exit_code=type(error).exit_code)


def _finding(model: tuple[str, str], configuration: Configuration, tell: Notify) -> Finding:
    from sdrt.benchmark.runner import estimated

    pixels = configuration.width * configuration.height
    what = f"{configuration.width}x{configuration.height}, batch {configuration.batch}, on {configuration.provider}"
    usual = estimated(model, configuration, tell)
    if usual is None:
        return Finding(
            name="memory",
            detail=f"{what}: this system does not report the memory of a process",
            status=Status.NOTE,
            remedy=f"for NVIDIA GPUs: {install_command('benchmark')}",
        )
    detail = f"{what}: about {human_size(usual.bytes_at(pixels))}"
    if usual.available is None:
        return Finding(name="memory", detail=detail)
    detail = f"{detail}, and {human_size(usual.available)} are free"
    if pixels <= usual.most_pixels():
        return Finding(name="memory", detail=detail)
    low_vram = estimated(model, replace(configuration, low_vram=True), tell)
    fits = [f"{_largest(usual, configuration)} fits" if usual.most_pixels() else "no size fits"]
    if low_vram is not None:
        needed = f"--low-vram takes about {human_size(low_vram.bytes_at(pixels))}"
        largest = (
            ""
            if pixels <= low_vram.most_pixels()
            else f", and {_largest(low_vram, configuration)} fits with it"
        )
        fits.append(needed + largest)
    if configuration.batch > 1:
        fits.append("smaller batches take less")
    return Finding(name="memory", detail=detail, status=Status.WARNING, remedy="; ".join(fits))


def _largest(estimate: Estimate, configuration: Configuration) -> str:
    """The largest size of the same shape that fits, in steps of 64 pixels."""
    scale = math.sqrt(estimate.most_pixels() / (configuration.width * configuration.height))
    width, height = (int(side * scale) // 64 * 64 for side in (configuration.width, configuration.height))
    return f"{width}x{height}" if width and height else "no size"
