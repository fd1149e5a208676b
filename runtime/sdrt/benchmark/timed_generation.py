"""Times one generation of the pipeline, and its parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrt.common.spans import DENOISE, DOWNLOAD, UPLOAD, listening

if TYPE_CHECKING:
    from sdrt.benchmark.configurations import Configuration
    from sdrt.pipeline import StableDiffusionPipeline

__all__ = ["PARTS", "Generation", "Span", "Step", "generator"]

Span = tuple[str, float, float]
"""Name, start and end, in seconds from the start of the generation."""

PARTS = ("unet", "guidance", "scheduler", "transfers")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of one step: an evaluation of the U-Net and the work around it. The parts add up to `wall`.

    Attributes:
        wall: the whole step.
        unet: the call of ONNX Runtime. On a device with its own memory, it ends when the output is in host memory.
        transfers: writing inputs to the buffers, and to the device if they live there; reading outputs from them.
        guidance: the rest of denoising: scaling, guidance, the check for NaN.
        scheduler: the sampler's arithmetic and its noise.
    """

    wall: float
    unet: float
    guidance: float
    scheduler: float
    transfers: float


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Seconds of one generation, from the request to the images. `spans` are its parts in order."""

    total: float
    text_encoder: float
    vae_decoder: float
    steps: tuple[Step, ...]
    spans: tuple[Span, ...] = ()

    @property
    def steady(self) -> list[float]:
        """Seconds of all steps after the first, which has one-time costs; or of the first if it is the only one."""
        return [step.wall for step in self.steps[1:] or self.steps]

    @property
    def typical(self) -> float:
        """The median of `steady`, in seconds."""
        return statistics.median(self.steady)


def generator(pipeline: StableDiffusionPipeline, configuration: Configuration) -> Callable[[], Generation]:
    """A function that generates the images of a configuration, and times them."""
    from sdrt.run.result import StableDiffusionPipelineOutput

    request = configuration.request()
    rule = pipeline.scheduler_for(configuration.scheduler, configuration.spacing)
    roles = pipeline.model.family.roles

    def generate() -> Generation:
        spans: list[Span] = []
        ends: list[float] = []
        timings: dict[str, Any] = {}
        began = time.perf_counter()
        with listening(
            lambda name, start, end: spans.append((roles.get(name, name), start - began, end - began))
        ):
            for event in pipeline.stream(request, scheduler=rule):
                if isinstance(event, StableDiffusionPipelineOutput):
                    timings = event.timings
                else:
                    ends.append(time.perf_counter() - began)
        return Generation(
            total=time.perf_counter() - began,
            text_encoder=timings["text_encoder"],
            vae_decoder=timings["vae_decoder"],
            steps=_steps(spans, ends),
            spans=tuple(sorted(spans, key=lambda span: span[1])),
        )

    return generate


def _steps(spans: Sequence[Span], ends: Sequence[float]) -> tuple[Step, ...]:
    """A step begins when the one before it ends. The first begins when the latents go to the U-Net."""
    starts = [min(start for name, start, _ in spans if name == DENOISE), *ends[:-1]]
    return tuple(_step(spans, start, end) for start, end in zip(starts, ends, strict=True))


def _step(spans: Sequence[Span], start: float, end: float) -> Step:
    inside = [span for span in spans if start <= span[1] and span[2] <= end]
    unet, denoise = _total(inside, "unet"), _total(inside, DENOISE)
    transfers = _total(inside, UPLOAD) + _total(inside, DOWNLOAD)
    wall = end - start
    return Step(
        wall=wall,
        unet=unet,
        transfers=transfers,
        guidance=denoise - unet - transfers,
        scheduler=wall - denoise,
    )


def _total(spans: Sequence[Span], name: str) -> float:
    return sum(end - start for found, start, end in spans if found == name)
