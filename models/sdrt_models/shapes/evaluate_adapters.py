"""Measures what adapters of the embedded model do. ``python -m sdrt_models.shapes.evaluate_adapters KIND ADAPTER``

``sdrt`` makes images of held-out scenes with them, and a program without a network reads the images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import numpy as np
from PIL import Image

from sdrt import SdrtError, StableDiffusionPipeline
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import draw_edges, draw_scene
from sdrt_models.shapes.recognise import coloured, recognise
from sdrt_models.shapes.scenes import MOON, NINE_SHAPES, Scene, is_unseen, sample_scene, with_moon
from sdrt_models.shapes.scoring import ATTRIBUTES, Rate, rates, table

__all__ = [
    "HeldOut",
    "held_out",
    "main",
    "measure_controlnet",
    "measure_ip_adapter",
    "measure_lora",
    "measure_others",
    "overlap",
    "validate_moons",
]

_SEED = 71
_BATCH = 8
_STEPS = 20
_IMAGE_GUIDANCE = 5.0
"""The guidance scale of image prompts, chosen on 120 other images: with 3, 5 and 7.5, 96, 100 and 92 are right."""
_LEAST_DRAWN = 0.98
_LEAST_OVERLAP = 0.8
WEIGHTS = (0.0, 0.5, 1.0)

Measured = Mapping[str, Rate | float]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A held-out scene, a caption that names everything in it, and the number that seeds its drawing."""

    scene: Scene
    prompt: str
    index: int

    def drawn(self) -> Image.Image:
        """The scene as the drawing program draws it."""
        return draw_scene(self.scene, self._rng())

    def edges(self) -> Image.Image:
        """The edges of :meth:`drawn`."""
        return draw_edges(self.scene, self._rng())

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng((_SEED + 1, self.index))


def held_out(count: int, *, moons: bool = False) -> list[HeldOut]:
    """``count`` scenes whose images and words the trainings never saw. They are the same every time.

    With ``moons``, each has a moon in place of one of its things.
    """
    found: dict[str, HeldOut] = {}
    index = 0
    while len(found) < count:
        rng = np.random.default_rng((_SEED, index))
        scene = sample_scene(rng, held_out=not moons)
        if scene.things:
            scene = with_moon(scene, rng) if moons else scene
            if is_unseen(scene):
                one = HeldOut(scene=scene, prompt=caption(scene, rng, complete=True), index=index)
                found.setdefault(one.prompt, one)
        index += 1
    return list(found.values())


# --- the LoRA -----------------------------------------------------------------------------------------------


def measure_lora(
    pipeline: StableDiffusionPipeline, lora: Path, count: int, weights: Sequence[float] = WEIGHTS
) -> dict[str, Measured]:
    """For each weight: in how many images of prompts with a moon there is one, and what is right of the rest."""
    return _by_weight(pipeline, lora, held_out(count, moons=True), weights)


def measure_others(
    pipeline: StableDiffusionPipeline, lora: Path, count: int, weights: Sequence[float] = (0.0, 1.0)
) -> dict[str, Measured]:
    """The same of prompts without a moon, in whose images there should be none."""
    found = _by_weight(pipeline, lora, held_out(count), weights)
    return {f"{title}, no moon asked for": measured for title, measured in found.items()}


def _by_weight(
    pipeline: StableDiffusionPipeline, lora: Path, cases: Sequence[HeldOut], weights: Sequence[float]
) -> dict[str, Measured]:
    return {
        f"weight {weight:g}": _moons(cases, list(_made(pipeline, cases, lora=f"{lora}:{weight}")))
        for weight in weights
    }


def _moons(cases: Sequence[HeldOut], images: Sequence[Image.Image]) -> Measured:
    there = [any(thing.shape == MOON for thing in recognise(image, NINE_SHAPES).things) for image in images]
    found = rates(zip((case.scene for case in cases), images, strict=True), NINE_SHAPES)
    return {"moon": Rate(right=sum(there), total=len(there)), **{name: found[name] for name in ATTRIBUTES}}


def validate_moons(count: int) -> dict[str, Measured]:
    """The same of drawn images, which are right by construction."""
    moons, others = held_out(count, moons=True), held_out(count)
    return {
        "drawn": _moons(moons, [case.drawn() for case in moons]),
        "drawn, no moon asked for": _moons(others, [case.drawn() for case in others]),
    }


# --- the ControlNet -----------------------------------------------------------------------------------------


def measure_controlnet(
    pipeline: StableDiffusionPipeline, count: int, scales: Sequence[float] = (0.0, 1.0)
) -> dict[str, Measured]:
    """For each scale: how far the things cover those whose edges were given, and what is right of the rest.

    ``overlap`` is the mean intersection over union, ``met`` counts images in which it is 0.8 or more.
    """
    cases = held_out(count)
    edges = [case.edges() for case in cases]
    return {
        f"scale {scale:g}": _overlaps(
            cases, list(_made(pipeline, cases, edges, controlnet_conditioning_scale=scale))
        )
        for scale in scales
    }


def _overlaps(cases: Sequence[HeldOut], images: Sequence[Image.Image]) -> Measured:
    found = rates(zip((case.scene for case in cases), images, strict=True))
    overlaps = [overlap(case.drawn(), image) for case, image in zip(cases, images, strict=True)]
    return {
        "overlap": float(np.mean(overlaps)),
        "met": Rate(right=sum(one >= _LEAST_OVERLAP for one in overlaps), total=len(overlaps)),
        **{
            name: found[name]
            for name in ("colour", "shape", "size", "fill", "background", "relation", "count")
        },
    }


def overlap(one: Image.Image, other: Image.Image) -> float:
    """Intersection over union of the coloured pixels of two images."""
    first, second = coloured(one), coloured(other)
    union = float((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


# --- the IP-Adapter -----------------------------------------------------------------------------------------


def measure_ip_adapter(
    pipeline: StableDiffusionPipeline, adapter: Path, count: int, scales: Sequence[float] = (0.0, 1.0)
) -> dict[str, Measured]:
    """For each scale: how often the images show what the image prompts show, with an empty text.

    The vision encoder is in ``image_encoder/`` beside the adapter's file.
    """
    cases = [case for case in held_out(3 * count) if len(case.scene.things) == 1][:count]
    pipeline.load_ip_adapter(adapter)
    found: dict[str, Measured] = {}
    for scale in scales:
        images = [
            pipeline(
                "",
                ip_adapter_image=case.drawn(),
                ip_adapter_scale=scale,
                guidance_scale=_IMAGE_GUIDANCE,
                num_inference_steps=_STEPS,
                scheduler="dpmpp_2m",
                seed=seed,
            ).images[0]
            for seed, case in enumerate(cases)
        ]
        rated = rates(zip((case.scene for case in cases), images, strict=True))
        found[f"scale {scale:g}"] = {
            "both": _both(cases, images),
            **{name: rated[name] for name in ATTRIBUTES},
        }
    pipeline.unload_ip_adapter()
    return found


def _both(cases: Sequence[HeldOut], images: Sequence[Image.Image]) -> Rate:
    """How many images show the colour and the shape of the only thing."""
    met = []
    for case, image in zip(cases, images, strict=True):
        seen, (asked,) = recognise(image).things, case.scene.things
        met.append(bool(seen) and (seen[0].colour, seen[0].shape) == (asked.colour, asked.shape))
    return Rate(right=sum(met), total=len(met))


# --- all ---------------------------------------------------------------------------------------------------


def _made(
    pipeline: StableDiffusionPipeline,
    cases: Sequence[HeldOut],
    control: Sequence[Image.Image] = (),
    **settings: Any,
) -> Iterator[Image.Image]:
    """An image of each prompt. ``control`` has a control image for each."""
    for first in range(0, len(cases), _BATCH):
        part = slice(first, first + _BATCH)
        given: dict[str, Any] = {"control_image": list(control[part])} if control else {}
        yield from pipeline(
            [case.prompt for case in cases[part]],
            num_inference_steps=_STEPS,
            scheduler="dpmpp_2m",
            seed=first,
            **given,
            **settings,
        ).images


def _lines(measured: Mapping[str, Measured]) -> Iterator[str]:
    for title, values in measured.items():
        yield title
        yield from (f"{name:14}{value:.3f}" for name, value in values.items() if isinstance(value, float))
        yield table({name: value for name, value in values.items() if isinstance(value, Rate)}) + "\n"


def _as_json(measured: Mapping[str, Measured]) -> dict[str, Any]:
    def one(value: Rate | float) -> Any:
        if isinstance(value, float):
            return value
        return {**vars(value), "share": value.share, "low": value.low, "high": value.high}

    return {title: {name: one(value) for name, value in values.items()} for title, values in measured.items()}


def _lora(lora: Path, count: int) -> dict[str, Measured]:
    drawn = validate_moons(count)
    there, none = (measured["moon"] for measured in drawn.values())
    assert isinstance(there, Rate)
    assert isinstance(none, Rate)
    if min(there.share, 1 - none.share) < _LEAST_DRAWN:
        raise click.ClickException(
            "the recogniser does not tell drawn moons from the other shapes: fix it first"
        )
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu") as pipeline:
        moons, others = measure_lora(pipeline, lora, count), measure_others(pipeline, lora, count)
        return {**drawn, **moons, **others}


def _controlnet(network: Path, count: int) -> dict[str, Measured]:
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", controlnet=network) as pipeline:
        return measure_controlnet(pipeline, count)


def _ip_adapter(adapter: Path, count: int) -> dict[str, Measured]:
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu") as pipeline:
        return measure_ip_adapter(pipeline, adapter, count)


_MEASURES: Mapping[str, Callable[[Path, int], dict[str, Measured]]] = {
    "lora": _lora,
    "controlnet": _controlnet,
    "ip-adapter": _ip_adapter,
}


@click.command()
@click.argument("kind", type=click.Choice(tuple(_MEASURES)))
@click.argument("adapter", type=click.Path(path_type=Path, exists=True))
@click.option("--prompts", type=click.IntRange(min=1), default=200, show_default=True)
@click.option(
    "--json",
    "json_file",
    type=click.File("w", encoding="utf-8", lazy=False),
    help="Also write the result as JSON.",
)
def main(kind: str, adapter: Path, prompts: int, json_file: IO[str] | None) -> None:
    """Make images of held-out prompts with ADAPTER, and report what they show."""
    try:
        measured = _MEASURES[kind](adapter, prompts)
    except SdrtError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    click.echo("\n".join(_lines(measured)))
    if json_file is not None:
        report = {"kind": kind, "prompts": prompts, "steps": _STEPS, "measured": _as_json(measured)}
        json_file.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
