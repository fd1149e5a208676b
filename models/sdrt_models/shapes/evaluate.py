"""Measures how well the model draws what a prompt says. ``python -m sdrt_models.shapes.evaluate``

``sdrt`` makes images from prompts of held-out scenes, and a program without a network reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
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
from sdrt_models.shapes.scoring import ATTRIBUTES, Difference, Rate, all_right, rates, table

__all__ = [
    "Change",
    "Settings",
    "held_out_prompts",
    "main",
    "measure",
    "measure_changes",
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
    seeds: int = 1
    """How many images of each prompt, with other noise each."""
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
    return rates(_made(pipeline, count, settings).pairs)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What other settings do to the images of the same prompts and seeds.

    Attributes:
        rates: the rates with them.
        difference: what they do to the images that have everything right.
        distance: how many calls they leave out, and how far the images differ.
    """

    rates: dict[str, Rate]
    difference: Difference
    distance: Distance


def measure_changes(
    pipeline: StableDiffusionPipeline, count: int, settings: Settings, changes: Sequence[Settings]
) -> tuple[dict[str, Rate], list[Change]]:
    """Rates of all attributes over ``count`` held-out prompts, and what each of ``changes`` of ``settings`` does."""
    usual = _made(pipeline, count, settings)
    return rates(usual.pairs), [_change(usual, _made(pipeline, count, one)) for one in changes]


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Images with the scenes that they should show, and the calls of the U-Net that each batch took on average."""

    pairs: list[tuple[Scene, Image.Image]]
    calls: float


def _made(pipeline: StableDiffusionPipeline, count: int, settings: Settings) -> _Made:
    prompts = held_out_prompts(count)
    outputs = list(_outputs(pipeline, [text for text, _ in prompts], settings))
    scenes = [scene for _, scene in prompts] * settings.seeds
    images = [image for output in outputs for image in output.images]
    calls = sum(len(output.timings["unet"]) for output in outputs)
    return _Made(pairs=list(zip(scenes, images, strict=True)), calls=calls / len(outputs))


def _change(usual: _Made, made: _Made) -> Change:
    both = zip(made.pairs, usual.pairs, strict=True)
    return Change(
        rates=rates(made.pairs),
        difference=Difference.of(all_right(usual.pairs), all_right(made.pairs)),
        distance=Distance(
            calls=made.calls,
            evaluations=usual.calls,
            psnr=[psnr(image, other) for (_, image), (_, other) in both],
        ),
    )


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
    starts = range(0, len(prompts), settings.batch)
    for number, first in product(range(settings.seeds), starts):
        part = slice(first, first + settings.batch)
        yield pipeline(
            prompts[part],
            negative_prompt=negative_prompts[part] if negative_prompts else None,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            scheduler=settings.scheduler,
            seed=settings.seed + number * len(prompts) + first,
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
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Images of each prompt."
)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--provider", default="auto", show_default=True)
@click.option("--accelerate", multiple=True, help="Compare with the images of all calls. Can be repeated.")
@click.option("--guidance-interval", type=float, nargs=2, help="Compare with guidance in every step.")
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
    seeds: int,
    batch: int,
    provider: str,
    accelerate: tuple[str, ...],
    guidance_interval: tuple[float, float] | None,
    negative: bool,
    json_file: IO[str] | None,
) -> None:
    """Make images of held-out prompts with sdrt, read what they show, and report how often it is right.

    First, the recogniser must read drawn images, whose content is known.
    """
    if negative and (accelerate or guidance_interval or seeds > 1):
        raise click.UsageError("--negative is measured alone: leave out other changes and --seeds")
    _validate()
    settings = Settings(
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        scheduler=scheduler,
        seed=seed,
        seeds=seeds,
        batch=batch,
    )
    changes = [
        replace(settings, accelerate=speed, guidance_interval=guidance_interval or None)
        for speed in accelerate or ("off",)
    ]
    try:
        with StableDiffusionPipeline.from_pretrained(model, provider=provider) as pipeline:
            report = {"settings": _about(pipeline, prompts, settings)}
            if changes == [settings]:
                report |= _judge(pipeline, prompts, settings, negative=negative)
            else:
                report |= _compare(pipeline, prompts, settings, changes)
    except SdrtError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    if json_file is not None:
        json_file.write(json.dumps(report, indent=2) + "\n")


def _judge(
    pipeline: StableDiffusionPipeline, prompts: int, settings: Settings, *, negative: bool
) -> dict[str, Any]:
    """Measure, print the rates, and return them."""
    found = (measure_negative_prompt if negative else measure)(pipeline, prompts, settings)
    click.echo(table(found))
    return {"rates": _as_json(found)}


def _compare(
    pipeline: StableDiffusionPipeline, prompts: int, settings: Settings, changes: Sequence[Settings]
) -> dict[str, Any]:
    """Measure with and without each change, print what it does, and return it."""
    usual, found = measure_changes(pipeline, prompts, settings, changes)
    click.echo(f"without:\n{table(usual)}")
    made = [_changed(one, change) for one, change in zip(changes, found, strict=True)]
    return {"rates": _as_json(usual), "changes": made}


def _changed(settings: Settings, change: Change) -> dict[str, Any]:
    what = {"accelerate": settings.accelerate, "guidance_interval": settings.guidance_interval}
    distance, difference = change.distance, change.difference
    click.echo(f"\nwith {what}: {distance}\n{table(change.rates)}\neverything right: {difference}")
    bounds = {"share": difference.share, "low": difference.low, "high": difference.high}
    psnr_of = {"mean": distance.mean, "median": distance.below(0.5), "5 % below": distance.below(0.05)}
    return {
        **what,
        "calls": distance.calls,
        "evaluations": distance.evaluations,
        "psnr": psnr_of,
        "everything": vars(difference) | bounds,
        "rates": _as_json(change.rates),
    }


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


def _as_json(found: dict[str, Rate]) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "right": rate.right,
            "total": rate.total,
            "share": rate.share if rate.total else None,
            "low": rate.low,
            "high": rate.high,
        }
        for name, rate in found.items()
    }


if __name__ == "__main__":
    main()
