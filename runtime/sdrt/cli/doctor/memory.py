"""The memory check of `sdrt doctor`: how much images of a size take, and which sizes fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdrt.cli.checkpoint_options import BESIDE
from sdrt.cli.doctor.check_result import Finding, Status
from sdrt.cli.models.summary import human_size
from sdrt.cli.spellings import in_options
from sdrt.common.extras import install_command
from sdrt.common.limits import advice_on_limits, memory_limit
from sdrt.common.notices import Notify
from sdrt.errors import OutOfMemoryError, SdrtError

if TYPE_CHECKING:
    from sdrt.benchmark.capacity import Estimate
    from sdrt.benchmark.configurations import Configuration
    from sdrt.benchmark.measure import Model

__all__ = ["check_available", "check_memory"]


def check_available() -> Iterator[Finding]:
    """Report how much memory there is, and what limits it."""
    from sdrt.benchmark.memory import available_bytes

    available, limit = available_bytes(), memory_limit()
    detail = "unknown" if available is None else f"{human_size(available)} free"
    if limit is None:
        yield Finding(name="free memory", detail=detail)
        return
    yield Finding(
        name="free memory",
        detail=f"{detail}, but {limit} holds, which also counts what is only reserved",
        status=Status.NOTE,
        remedy=f"to raise it: ulimit {limit.option} unlimited",
    )


def check_memory(
    model: str,
    provider: str,
    sizes: Sequence[tuple[int | None, int | None]],
    batch: int,
    tell: Notify,
    **options: Any,
) -> Iterator[Finding]:
    """Yield a finding for each size (None for the model's own).

    `tell` receives progress messages, and `options` go to `from_pretrained`.
    """
    from sdrt.benchmark.configurations import Asked, expand
    from sdrt.benchmark.measure import Model
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
            provider_library=options.get("provider_library"),
            low_vram=False,
            max_size=max((side for size in sizes for side in size if side is not None), default=None),
        )
        opened = Model.of(pipeline.model, {name: options.get(name) for name in BESIDE})
        for configuration, _ in expand(asked, lambda provider, threads: pipeline):
            yield _finding(opened, configuration, tell)
    except SdrtError as error:
        yield Finding(
            name="memory", detail=in_options(error), status=Status.ERROR, exit_code=type(error).exit_code
        )


def _finding(model: Model, configuration: Configuration, tell: Notify) -> Finding:
    from sdrt.benchmark.runner import estimated

    pixels, limit = configuration.width * configuration.height, memory_limit()
    what = f"{configuration.width}x{configuration.height}, batch {configuration.batch}, on {configuration.provider}"
    try:
        usual = estimated(model, configuration, tell)
    except OutOfMemoryError:
        return _without_estimate(model, configuration, what, tell)
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
    there = f"{human_size(usual.available)} are free" if limit is None else f"{limit} holds"
    detail = f"{detail}, and {there}"
    if pixels <= usual.most_pixels():
        return Finding(name="memory", detail=detail)
    fits = [f"{_largest(usual, configuration)} fits" if usual.most_pixels() else "no size fits"]
    try:
        fits += _with_low_vram(model, configuration, tell)
    except OutOfMemoryError:
        fits.append("--low-vram does not fit either")
    if configuration.batch > 1:
        fits.append("smaller batches take less")
    return Finding(name="memory", detail=detail, status=Status.WARNING, remedy="; ".join(fits))


def _without_estimate(model: Model, configuration: Configuration, what: str, tell: Notify) -> Finding:
    """The finding for a model that does not fit into memory even for a small image."""
    try:
        fits = _with_low_vram(model, configuration, tell)
    except OutOfMemoryError:
        return Finding(
            name="memory",
            detail=f"{what}: no size fits, not even with --low-vram",
            status=Status.ERROR,
            remedy=advice_on_limits(),
            exit_code=OutOfMemoryError.exit_code,
        )
    return Finding(
        name="memory",
        detail=f"{what}: the model does not fit into memory as a whole",
        status=Status.WARNING,
        remedy="; ".join(fits),
    )


def _with_low_vram(model: Model, configuration: Configuration, tell: Notify) -> list[str]:
    """What `--low-vram` takes and which size fits with it. Empty if the system does not report memory."""
    from sdrt.benchmark.runner import estimated

    pixels = configuration.width * configuration.height
    low_vram = estimated(model, replace(configuration, low_vram=True), tell)
    if low_vram is None:
        return []
    needed = f"--low-vram takes about {human_size(low_vram.bytes_at(pixels))}"
    if pixels <= low_vram.most_pixels():
        return [needed]
    return [f"{needed}, and {_largest(low_vram, configuration)} fits with it"]


def _largest(estimate: Estimate, configuration: Configuration) -> str:
    """The largest size of the same shape that fits, in steps of 64 pixels."""
    scale = math.sqrt(estimate.most_pixels() / (configuration.width * configuration.height))
    width, height = (int(side * scale) // 64 * 64 for side in (configuration.width, configuration.height))
    return f"{width}x{height}" if width and height else "no size"
