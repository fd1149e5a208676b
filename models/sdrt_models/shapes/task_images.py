"""Makes an image of each task in ``docs/features.md``. ``python -m sdrt_models.shapes.task_images DIR``

It uses the embedded model, and writes the images to ``docs/images`` in DIR.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from PIL import Image, ImageDraw

import sdrt_models
from sdrt import SdrtError, StableDiffusionPipeline
from sdrt.images.contact_sheet import ContactSheet

__all__ = ["TASKS", "Task", "main"]

_IMAGES = Path("docs", "images")
_STEPS = 20
_SIDE = 128
_PREVIEWED = (1, 2, 3, 5, 8, 12)

Cells = Sequence[tuple[Image.Image, str]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A line about an image, and the function that makes it."""

    about: str
    draw: Callable[[StableDiffusionPipeline], Image.Image]


def _text_to_image(pipeline: StableDiffusionPipeline) -> Image.Image:
    prompts = (
        "a red circle",
        "a small blue star left of a large green square on a gray background",
        "a striped pink ring on a black background",
        "a dotted orange hexagon on a white and gray background",
    )
    return _row([(_one(pipeline, prompt, seed=1), prompt) for prompt in prompts])


def _image_to_image(pipeline: StableDiffusionPipeline) -> Image.Image:
    before = _circle(pipeline)
    prompt = "a large striped red circle on a white background"
    after = [
        (_one(pipeline, prompt, seed=1, image=before, strength=strength), f"strength {strength}")
        for strength in (0.3, 0.6, 0.9)
    ]
    return _row([(before, "the given image"), *after])


def _inpainting(pipeline: StableDiffusionPipeline) -> Image.Image:
    before = _one(pipeline, "a small red circle right of a small blue star on a white background", seed=7)
    mask = Image.new("L", before.size)
    ImageDraw.Draw(mask).rectangle((_SIDE * 5 // 8, 0, _SIDE, _SIDE), fill=255)
    prompt = "a small green heart right of a small blue star on a white background"
    after = _one(pipeline, prompt, seed=1, image=before, mask_image=mask)
    return _row([(before, "the given image"), (mask, "the mask"), (after, "a small green heart …")])


def _lora(pipeline: StableDiffusionPipeline) -> Image.Image:
    prompt = "a large yellow moon left of a small cyan star on a black background"
    cells = [
        (_one(pipeline, prompt, seed=1, lora=f"{sdrt_models.adapter('moon')}:{weight}"), f"weight {weight}")
        for weight in (0, 0.5, 1)
    ]
    return _row(cells)


def _controlnet(pipeline: StableDiffusionPipeline) -> Image.Image:
    prompt = "a dotted orange heart right of a green triangle on a gray background"
    edges = Image.new("L", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(edges)
    pen.polygon([(12, 108), (58, 108), (35, 64)], outline=255)
    pen.polygon(
        [(92, 62), (72, 40), (72, 26), (84, 22), (92, 30), (100, 22), (112, 26), (112, 40)], outline=255
    )
    cells = [(edges, "--control-image")]
    with StableDiffusionPipeline.from_pretrained(
        "shapes", provider="cpu", controlnet=sdrt_models.adapter("edges")
    ) as controlled:
        cells += [
            (
                _one(controlled, prompt, seed=1, control_image=edges, controlnet_conditioning_scale=scale),
                f"scale {scale}",
            )
            for scale in (0, 0.5, 1)
        ]
    return _row(cells)


def _image_prompt(pipeline: StableDiffusionPipeline) -> Image.Image:
    prompts = (
        "a large cyan triangle on a black background",
        "a dotted orange hexagon on a gray background",
        "a large striped purple ring on a white background",
    )
    shown = [_one(pipeline, prompt, seed=1) for prompt in prompts]
    with StableDiffusionPipeline.from_pretrained(
        "shapes", provider="cpu", ip_adapter=sdrt_models.adapter("likeness")
    ) as prompted:
        drawn = [_one(prompted, "", seed=2, ip_adapter_image=image) for image in shown]
    pairs = zip(shown, drawn, strict=True)
    return _row([cell for given, made in pairs for cell in ((given, "--ip-image"), (made, "drawn"))])


def _outpainting(pipeline: StableDiffusionPipeline) -> Image.Image:
    before = _circle(pipeline)
    prompt = "a large red circle left of a large blue square on a white background"
    after = _one(pipeline, prompt, seed=1, image=before, outpaint="192x128@left")
    given = Image.new("RGB", after.size, "darkgray")
    given.paste(before)
    return _row([(given, "given image, new area"), (after, "grown to 192x128")], width=after.width)


def _hires(pipeline: StableDiffusionPipeline) -> Image.Image:
    # The model knows one image size. Most other things would appear several times in a larger image.
    prompt = "a large blue square on a white background"
    before = _one(pipeline, prompt, seed=2)
    after = _one(pipeline, prompt, seed=2, hires_scale=2, hires_strength=0.3, hires_upscaler="lanczos")
    cells = [(before, "128x128, shown larger"), (after, "--hires 2, 256x256")]
    return _row(cells, width=after.width, height=after.height)


def _tiles(pipeline: StableDiffusionPipeline) -> Image.Image:
    prompt = "a small blue star on a gray background"
    wide = _one(pipeline, prompt, seed=2, width=4 * _SIDE, tile_size=_SIDE)
    return _row([(wide, f"{prompt}, 512x128 in windows of 128")], width=4 * _SIDE)


def _prompts(pipeline: StableDiffusionPipeline) -> Image.Image:
    prompts = (
        *(f"a large red [circle:star:{share}]" for share in (0.8, 0.6, 0.3)),
        *(f"a large red circle AND a striped red circle:{weight}" for weight in (0.2, 0.5, 1)),
        *(f"a large {colour} heart" for colour in ("orange", "red", "[orange|red]")),
    )
    return _sheet(
        [(_one(pipeline, prompt, seed=3), prompt) for prompt in prompts], columns=3, width=160, height=160
    )


def _previews(pipeline: StableDiffusionPipeline) -> Image.Image:
    cells: list[tuple[Image.Image, str]] = []

    def watch(_: object, step: int, __: float, tensors: Mapping[str, Any]) -> None:
        if step + 1 in _PREVIEWED:
            cells.append((pipeline.preview(tensors["denoised"])[0], f"step {step + 1}"))

    prompt = "a large blue star left of a large orange ring on a black background"
    image = _one(
        pipeline,
        prompt,
        seed=2,
        num_inference_steps=_PREVIEWED[-1],
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=("denoised",),
    )
    return _row([*cells, (image, "the image")])


def _grid(_: StableDiffusionPipeline) -> Image.Image:
    prompts = (
        "a large yellow star on a black background",
        "a small pink heart above a large cyan ring on a white background",
    )
    return _by_command(["generate", *prompts, "--count", "4", "--grid", "-o", "{index}.png"], "0-grid.png")


def _plot(_: StableDiffusionPipeline) -> Image.Image:
    axes = ["-x", "steps=3,5,10,20", "-y", "scheduler=euler,unipc,euler_a"]
    prompt = "a large striped purple square on a white background"
    return _by_command(["plot", prompt, *axes, "-o", "plot.png"], "plot.png")


TASKS: Mapping[str, Task] = {
    "text-to-image": Task(about="`sdrt generate PROMPT`: four prompts, seed 1.", draw=_text_to_image),
    "image-to-image": Task(
        about='`-i FILE --strength S`: a red circle, and "a large striped red circle" of it.',
        draw=_image_to_image,
    ),
    "inpainting": Task(about="`-i FILE --mask FILE`: the circle becomes a heart.", draw=_inpainting),
    "lora": Task(
        about='`--lora moon.safetensors:WEIGHT`: "a large yellow moon left of a small cyan star", seed 1.',
        draw=_lora,
    ),
    "controlnet": Task(
        about='`--controlnet edges --control-image FILE`: "a dotted orange heart right of a green triangle", seed 1.',
        draw=_controlnet,
    ),
    "image-prompt": Task(
        about="`--ip-adapter likeness --ip-image FILE`: no text; the image says what to draw.",
        draw=_image_prompt,
    ),
    "outpainting": Task(
        about="`-i FILE --outpaint 192x128@left`: a blue square beside the circle.", draw=_outpainting
    ),
    "hires": Task(
        about="`--hires 2 --hires-strength 0.3 --hires-upscaler lanczos`: before and after.", draw=_hires
    ),
    "tiles": Task(about="`-W 512 --tile-size 128`: each window draws the prompt.", draw=_tiles),
    "prompts": Task(
        about="A1111's syntax: `[circle:star:0.6]` changes after that share of the steps; AND; `[orange|red]`.",
        draw=_prompts,
    ),
    "previews": Task(about="`--preview`: the state of a run, and its result.", draw=_previews),
    "grid": Task(about="`sdrt generate PROMPT PROMPT --count 4 --grid`: a row for each prompt.", draw=_grid),
    "plot": Task(about="`sdrt plot PROMPT -x steps=… -y scheduler=…`.", draw=_plot),
}


def _one(pipeline: StableDiffusionPipeline, prompt: str, **settings: Any) -> Image.Image:
    image: Image.Image = pipeline(prompt, **{"num_inference_steps": _STEPS, **settings}).images[0]
    return image


def _circle(pipeline: StableDiffusionPipeline) -> Image.Image:
    return _one(pipeline, "a large red circle on a white background", seed=1)


def _row(cells: Cells, **size: int) -> Image.Image:
    return _sheet(cells, columns=len(cells), **size)


def _sheet(cells: Cells, *, columns: int, width: int = _SIDE, height: int = _SIDE) -> Image.Image:
    sheet = ContactSheet(count=len(cells), width=width, height=height, columns=columns)
    for image, label in cells:
        sheet.add(image, label)
    return sheet.render()


def _by_command(arguments: Sequence[str], result: str) -> Image.Image:
    """The image `result` that an `sdrt` command writes."""
    with TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "sdrt", *arguments, "--steps", str(_STEPS), "--seed", "3", "--quiet"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return Image.open(Path(folder, result)).convert("RGB")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--task",
    "names",
    multiple=True,
    type=click.Choice(tuple(TASKS)),
    help="Make only this one. Can be repeated.",
)
def main(folder: Path, names: tuple[str, ...]) -> None:
    """Make an image of each task in DIR, which is a checkout of the project."""
    images = folder / _IMAGES
    images.mkdir(parents=True, exist_ok=True)
    try:
        with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu") as pipeline:
            for name in names or TASKS:
                path = images / f"task-{name}.webp"
                TASKS[name].draw(pipeline).save(path, quality=90, method=6)
                click.echo(f"{path}: {TASKS[name].about}")
    except SdrtError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
