"""Configurations to measure, and the rules that say when measuring begins and ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.messages import brief, wrong_value
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from sdrt.pipeline import StableDiffusionPipeline
    from sdrt.request.request import Request

__all__ = ["PROMPT", "Asked", "Configuration", "Rules", "expand"]

PROMPT = "a red circle"
"""The prompt of every measured image. Within one chunk of tokens, its length does not change the time."""
MOST_CONFIGURATIONS = 1000
# Larger sides are refused whatever --max-size says.
_MOST_SIDE = 2**31


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When measuring begins and ends. Raises `RequestError` on construction.

    Attributes:
        confidence: the confidence of all intervals.
        precision: the width of the median step's interval at which measuring ends, as a share of the median.
        time_limit: seconds after the first generation of a configuration in which another one may begin. Warming up
            takes at most half of them.
        tolerance: the share by which the median steps of two consecutive generations may differ after warming up.
        most_warmup: the most generations for warming up, including the first.
        least_generations: the fewest generations to measure, if the time limit allows them.
        first_pictures: processes that make a first image; about half of them if the time limit has passed.
    """

    confidence: float = 0.95
    precision: float = 0.02
    time_limit: float = 20.0
    tolerance: float = 0.05
    most_warmup: int = 10
    least_generations: int = 3
    first_pictures: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1:
            raise wrong_value("precision", self.precision, "a share between 0 and 1, such as 0.02")
        if not 0 <= self.time_limit <= 86_400:
            raise RequestError.expected(
                f"time limit is {brief(self.time_limit)}", "seconds, from 0 to 86400", argument="time_limit"
            )


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration to measure: everything that its time depends on, except the model and the machine.

    `scheduler` and `spacing` are the values that the user gave, None for the model's. `scheduler_name` and
    `spacing_name` are the resolved names. `threads` is None for all cores.
    """

    width: int
    height: int
    batch: int
    steps: int
    evaluations: int
    guidance_scale: float
    scheduler: str | None
    spacing: str | None
    scheduler_name: str
    spacing_name: str
    provider: str
    threads: int | None
    allow_fallback: bool
    vae_tiling: bool | None
    low_vram: bool
    provider_options: Mapping[str, str]
    provider_library: str | None
    max_size: int | None

    def request(self) -> Request:
        """The request to the pipeline."""
        from sdrt.request.request import Request

        return Request(
            prompt=PROMPT,
            width=self.width,
            height=self.height,
            num_images_per_prompt=self.batch,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            seed=0,
            max_size=self.max_size,
        )

    def settings(self) -> dict[str, Any]:
        """The settings for the record. If the scheduler came from a file, `scheduler_file` names it."""
        found = asdict(self)
        asked = found.pop("scheduler")
        # The evaluations follow from the steps and the scheduler.
        del found["evaluations"]
        found["scheduler"], found["spacing"] = found.pop("scheduler_name"), found.pop("spacing_name")
        found["scheduler_file"] = asked if asked and Path(asked).is_file() else None
        return found


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The lists that a user gave. Every combination is a configuration. None stands for the model's default."""

    sizes: Sequence[tuple[int | None, int | None]] = ((None, None),)
    batches: Sequence[int] = (1,)
    schedulers: Sequence[str | None] = (None,)
    providers: Sequence[str] = ("auto",)
    threads: Sequence[int | None] = (None,)
    steps: int = 20
    guidance_scale: float | None = None
    spacing: str | None = None
    allow_fallback: bool = False
    vae_tiling: bool | None = None
    low_vram: bool = False
    provider_options: Mapping[str, str] = field(default_factory=dict)
    provider_library: str | None = None
    max_size: int | None = None


def expand(
    asked: Asked, open_pipeline: Callable[[str, int | None], StableDiffusionPipeline]
) -> list[tuple[Configuration, StableDiffusionPipeline]]:
    """All configurations, each with a pipeline for it that has no sessions yet. Sizes vary slowest, as in a table.

    Raises `RequestError`, `ProviderError` or `ModelError` for a configuration that cannot be measured.
    """
    pipelines = {
        (provider, threads): open_pipeline(provider, threads)
        for provider, threads in itertools.product(asked.providers, asked.threads)
    }
    lists = (asked.sizes, asked.batches, asked.schedulers, asked.providers, asked.threads)
    combinations = list(dict.fromkeys(itertools.product(*lists)))
    if len(combinations) > MOST_CONFIGURATIONS:
        raise RequestError.expected(
            f"the lists make {len(combinations)} configurations",
            f"at most {MOST_CONFIGURATIONS}",
            argument="sizes",
        )
    found: list[tuple[Configuration, StableDiffusionPipeline]] = []
    for size, batch, scheduler, provider, threads in combinations:
        pipeline = pipelines[provider, threads]
        configuration = _configuration(asked, pipeline, size, batch, scheduler, provider, threads)
        # Two combinations can be the same configuration: "auto" and its provider, or the model's size twice.
        if all(configuration != other for other, _ in found):
            found.append((configuration, pipeline))
    return found


def _configuration(
    asked: Asked,
    pipeline: StableDiffusionPipeline,
    size: tuple[int | None, int | None],
    batch: int,
    scheduler: str | None,
    provider: str,
    threads: int | None,
) -> Configuration:
    from sdrt.request.request import Request

    _check_size(size, asked.max_size)
    request = Request(
        prompt=PROMPT,
        width=size[0],
        height=size[1],
        num_images_per_prompt=batch,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        seed=0,
        max_size=asked.max_size,
    )
    planned = pipeline.plan(request, scheduler=scheduler, spacing=asked.spacing)
    evaluations = planned.num_evaluations
    if evaluations is None:
        raise RequestError.advised(
            f"scheduler {scheduler!r} has no fixed number of steps to measure",
            "choose another",
            argument="scheduler",
        )
    return Configuration(
        width=planned.request.width,
        height=planned.request.height,
        batch=batch,
        steps=asked.steps,
        evaluations=evaluations,
        guidance_scale=planned.request.guidance_scale,
        scheduler=scheduler,
        spacing=asked.spacing,
        scheduler_name=planned.scheduler.name,
        spacing_name=planned.scheduler.spacing,
        provider=pipeline.provider if provider == "auto" else provider,
        # No more than there are CPUs.
        threads=threads and pipeline.threads,
        allow_fallback=asked.allow_fallback,
        vae_tiling=asked.vae_tiling,
        low_vram=asked.low_vram,
        provider_options=dict(asked.provider_options),
        provider_library=asked.provider_library,
        max_size=asked.max_size,
    )


def _check_size(size: tuple[int | None, int | None], max_size: int | None) -> None:
    """Raise `RequestError` for a large size. A request would advise `tile_size`, which is not measured here."""
    from sdrt.request.bounds import MAX_SIZE

    most = max_size or MAX_SIZE
    for name, side in zip(("width", "height"), size, strict=True):
        if side is not None and most < side <= _MOST_SIDE:
            raise wrong_value(name, side, f"at most {most}, or allow more with --max-size {side}")
