"""Tasks of several runs: each is a request that is made of what the one before it made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import to_bytes, to_pil
from sdrt.request.request import WITHOUT_HIRES, Request
from sdrt.run.result import Events, GenerationStep, StableDiffusionPipelineOutput
from sdrt.schedulers import Scheduler

__all__ = ["make_twice", "num_evaluations", "outpaint"]

Generate = Callable[[Request], Events]


def num_evaluations(request: Request, scheduler: Scheduler) -> int:
    """Evaluations of the U-Net for a request that `fit` has filled in; raises what its plans raise."""
    steps = [(request.num_inference_steps, request.num_skipped_steps)]
    if request.outpaint is not None:
        steps *= len(request.passes())
    if request.hires_scale is not None:
        again = request.hires_steps or request.num_inference_steps
        steps.append((again, again - request.num_hires_steps))
    return sum(scheduler.plan(count, skip=skip).num_evaluations for count, skip in steps)


def outpaint(request: Request, generate: Generate, capabilities: Capabilities) -> Events:
    """One run after another, each of which paints a border around what the one before it made."""
    each = request.num_images_per_prompt
    pictures = [picture for picture in request.image for _ in range(each)]
    timings: list[Mapping[str, Any]] = []
    for number, growth in enumerate(request.passes()):
        made = yield from _steps_of(generate(request.grown(pictures, growth, number).fit(capabilities)))
        pictures = [to_bytes(image) for image in made.images]
        timings.append(made.timings)
    yield StableDiffusionPipelineOutput(
        images=made.images if request.output_type == "np" else [to_pil(image) for image in made.images],
        seeds=list(request.seeds),
        request=request,
        timings=_added(timings),
        origin=made.origin,
    )


def make_twice(request: Request, generate: Generate, capabilities: Capabilities) -> Events:
    """A small picture, and from it a large one: `hires_scale`."""
    kind = "latent" if request.hires_upscaler == "latent" else "np"
    small = yield from _steps_of(generate(replace(request, output_type=kind, **WITHOUT_HIRES)))
    large = yield from _steps_of(generate(request.enlarged(small.images, capabilities).fit(capabilities)))
    yield replace(large, request=request, timings=_added([small.timings, large.timings]))


def _steps_of(events: Events) -> Generator[GenerationStep, None, StableDiffusionPipelineOutput]:
    """Yield the steps of a run; return its result."""
    for event in events:
        if isinstance(event, StableDiffusionPipelineOutput):
            return event
        yield event
    raise AssertionError("a stream ends with its result")


def _added(timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The timings of several runs as those of one."""
    total = dict(timings[0])
    for more in timings[1:]:
        total |= {name: total[name] + spent if name in total else spent for name, spent in more.items()}
    return total
