"""Measures how well the model draws what a prompt says. ``python -m sdrt_models.shapes.evaluate``

``sdrt`` makes images from prompts of held-out scenes, and a program without a network reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

import click
import numpy as np
from PIL import Image

from sdrt import SdrtError, StableDiffusionPipeline, StableDiffusionPipelineOutput
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.distance import Distance, psnr
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.recognise import Seen, recognise
from sdrt_models.shapes.scenes import COLOURS, SHAPES, Scene, is_unseen, sample_scene
from sdrt_models.shapes.scoring import ATTRIBUTES, Rate, rates, table

__all__ = [
    "Settings",
    "held_out_prompts",
    "main",
    "measure",
    "measure_acceleration",
    "measure_negative_prompt",
]

_SEED = 31
_DRAWN = 200
_LEAST_DRAWN = 0.99


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to make the images, with the names of :class:`sdrt.Request`."""

    num_inference_steps: int = 20
    guidance_scale: float | None = None
    """None for the model's own."""
    scheduler: str = "dpmpp_2m"
    seed: int = 0
    batch: int = 8
    accelerate: str = "off"
    guidance_interval: tuple[float, float] | None = None


def held_out_prompts(count: int) -> list[tuple[str, Scene]]:
    """``count`` different captions that name everything in scenes whose images and words the training never saw.

    They are the same every time.
    """
    prompts: dict[str, Scene] = {}
    index = 0
    while len(prompts) < count:
        rng = np.random.default_rng((_SEED, index))
        scene = sample_scene(rng, held_out=True)
        index += 1
        if is_unseen(scene):
            prompts.setdefault(caption(scene, rng, complete=True), scene)
    return list(prompts.items())


def measure(pipeline: StableDiffusionPipeline, count: int, settings: Settings) -> dict[str, Rate]:
    """Rates of all attributes over ``count`` held-out prompts."""
    prompts = held_out_prompts(count)
    images = _generate(pipeline, [text for text, _ in prompts], settings)
    return rates(zip((scene for _, scene in prompts), images, strict=True))


def measure_acceleration(
    pipeline: StableDiffusionPipeline, count: int, settings: Settings
) -> tuple[dict[str, Rate], dict[str, Rate], Distance]:
    """Rates with ``settings.accelerate`` and with all calls, over the same prompts, and how far the images differ."""
    prompts = held_out_prompts(count)
    texts, scenes = [text for text, _ in prompts], [scene for _, scene in prompts]
    fast, full = (
        list(_outputs(pipeline, texts, one)) for one in (settings, replace(settings, accelerate="off"))
    )
    images, whole = ([image for output in made for image in output.images] for made in (fast, full))
    distance = Distance(
        calls=_calls(fast) / len(fast),
        evaluations=_calls(full) / len(full),
        psnr=[psnr(one, other) for one, other in zip(images, whole, strict=True)],
    )
    found, usual = (rates(zip(scenes, made, strict=True)) for made in (images, whole))
    return found, usual, distance


def _calls(outputs: list[StableDiffusionPipelineOutput]) -> int:
    return sum(len(output.timings["unet"]) for output in outputs)


def measure_negative_prompt(
    pipeline: StableDiffusionPipeline, count: int, settings: Settings
) -> dict[str, Rate]:
    """How often the background that a seed gives is still there when the negative prompt names it.

    The prompts leave the background open. Of the images that had a background, ``kept`` counts those that still have
    the named shade. ``drawn`` and ``drawn without`` count the images that show what the prompt asks for, with and
    without the negative prompt.
    """
    things = [
        (list(COLOURS)[i % len(COLOURS)], SHAPES[i // len(COLOURS) % len(SHAPES)]) for i in range(count)
    ]
    prompts = [f"a {colour} {shape}" for colour, shape in things]
    before = [recognise(image) for image in _generate(pipeline, prompts, settings)]
    named = [seen.shades[0] if seen.shades else None for seen in before]
    negatives = [f"a {shade} background" if shade else "" for shade in named]
    after = [recognise(image) for image in _generate(pipeline, prompts, settings, negatives)]
    kept = [shade in seen.shades for shade, seen in zip(named, after, strict=True) if shade]
    return {
        "kept": Rate(right=sum(kept), total=len(kept)),
        "drawn": _share_drawn(things, after),
        "drawn without": _share_drawn(things, before),
    }


def _share_drawn(things: list[tuple[str, str]], images: list[Seen]) -> Rate:
    drawn = [
        any((thing.colour, thing.shape) == asked for thing in seen.things)
        for asked, seen in zip(things, images, strict=True)
    ]
    return Rate(right=sum(drawn), total=len(drawn))


def _generate(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    settings: Settings,
    negative_prompts: list[str] | None = None,
) -> Iterator[Image.Image]:
    for output in _outputs(pipeline, prompts, settings, negative_prompts):
        yield from output.images


def _outputs(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    settings: Settings,
    negative_prompts: list[str] | None = None,
) -> Iterator[StableDiffusionPipelineOutput]:
    for first in range(0, len(prompts), settings.batch):
        part = slice(first, first + settings.batch)
        yield pipeline(
            prompts[part],
            negative_prompt=negative_prompts[part] if negative_prompts else None,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            scheduler=settings.scheduler,
            seed=settings.seed + first,
            accelerate=settings.accelerate,
            guidance_interval=settings.guidance_interval,
        )


def _drawn(count: int) -> Iterator[tuple[Scene, Image.Image]]:
    """Drawn scenes and their images. They are right by construction, so any error is the recogniser's."""
    for index in range(count):
        rng = np.random.default_rng((_SEED + 1, index))
        scene = sample_scene(rng, held_out=bool(index % 2))
        yield scene, draw_scene(scene, rng)


@click.command()
@click.option(
    "-m", "--model", default="shapes", show_default=True, help="The model to evaluate, as for sdrt generate."
)
@click.option("--prompts", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--guidance-scale", type=float, help="[default: the model's]")
@click.option("--scheduler", default="dpmpp_2m", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--provider", default="auto", show_default=True)
@click.option(
    "--accelerate", default="off", show_default=True, help="Also compare with the images of all calls."
)
@click.option("--guidance-interval", type=float, nargs=2, help="Guide only the steps between these shares.")
@click.option("--negative", is_flag=True, help="Measure the effect of negative prompts instead.")
@click.option(
    "--json",
    "json_file",
    type=click.File("w", encoding="utf-8", lazy=False),
    help="Also write the result as JSON.",
)
def main(
    model: str,
    prompts: int,
    steps: int,
    guidance_scale: float | None,
    scheduler: str,
    seed: int,
    batch: int,
    provider: str,
    accelerate: str,
    guidance_interval: tuple[float, float] | None,
    negative: bool,
    json_file: IO[str] | None,
) -> None:
    """Make images of held-out prompts with sdrt, read what they show, and report how often it is right.

    First, the recogniser must read drawn images, whose content is known.
    """
    _validate()
    settings = Settings(
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        scheduler=scheduler,
        seed=seed,
        batch=batch,
        accelerate=accelerate,
        guidance_interval=guidance_interval or None,
    )
    try:
        report = _judge(model, provider, prompts, settings, negative=negative)
    except SdrtError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    if json_file is not None:
        json_file.write(json.dumps(report, indent=2) + "\n")


def _judge(model: str, provider: str, prompts: int, settings: Settings, *, negative: bool) -> dict[str, Any]:
    """Measure, print the rates, and return them with the settings that they were measured with."""
    with StableDiffusionPipeline.from_pretrained(model, provider=provider) as pipeline:
        if settings.accelerate == "off":
            found = (measure_negative_prompt if negative else measure)(pipeline, prompts, settings)
            measured = {"rates": found}
        else:
            found, usual, distance = measure_acceleration(pipeline, prompts, settings)
            click.echo(f"with all calls:\n{table(usual)}\n\nwith {settings.accelerate}: {distance}")
            measured = {"rates": found, "rates_with_all_calls": usual}
        click.echo(table(found))
        report: dict[str, Any] = {"settings": _about(pipeline, prompts, settings)}
        report |= {
            name: {one: _as_json(rate) for one, rate in each.items()} for name, each in measured.items()
        }
        return report if settings.accelerate == "off" else {**report, "distance": vars(distance)}


def _about(pipeline: StableDiffusionPipeline, prompts: int, settings: Settings) -> dict[str, Any]:
    manifest = pipeline.model.manifest
    return {
        "model": pipeline.model.name,
        "dtype": manifest.dtype if manifest else None,
        "provider": pipeline.provider,
        "prompts": prompts,
        **vars(settings),
        "guidance_scale": pipeline.model.capabilities.guidance_scale
        if settings.guidance_scale is None
        else settings.guidance_scale,
    }


def _validate() -> None:
    """Raise if the recogniser misreads drawn images, because its verdict on a model would then mean nothing."""
    found = rates(_drawn(_DRAWN))
    click.echo(f"drawn images, to test the recogniser:\n{table(found)}\n")
    if wrong := [name for name in ATTRIBUTES if found[name].share < _LEAST_DRAWN]:
        raise click.ClickException(
            f"the recogniser reads {wrong[0]} right in {found[wrong[0]].share:.1%} of drawn images, expected at least "
            f"{_LEAST_DRAWN:.0%}: fix it first"
        )


def _as_json(rate: Rate) -> dict[str, float | None]:
    share = rate.share if rate.total else None
    return {"right": rate.right, "total": rate.total, "share": share, "low": rate.low, "high": rate.high}


if __name__ == "__main__":
    main()
