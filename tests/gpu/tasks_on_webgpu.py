"""Makes images of every task on WebGPU and on the CPU, and prints how far apart they are, as JSON.

    python tasks_on_webgpu.py

The model is the embedded one, whose images are small here, since a GPU in software is slow. Tests run this as a process
of its own (`software_gpu.run`).
"""

from __future__ import annotations

import json
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import sdrt_models
from sdrt import Request, StableDiffusionPipeline
from sdrt.errors import RunCancelledError

SIDE = 64
USUAL: dict[str, Any] = {
    "num_inference_steps": 4,
    "strength": 0.5,
    "width": SIDE,
    "height": SIDE,
    "seed": 1,
    "guidance_scale": 3,
    "output_type": "np",
}
PROMPT = "a red circle"


def drawn() -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill="blue")
    return image


def outline() -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "black")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), outline="white")
    return image


def mask() -> Image.Image:
    image = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(image).rectangle((0, 0, SIDE // 2, SIDE), fill=255)
    return image


def of_text(pipeline: StableDiffusionPipeline, **more: Any) -> Any:
    given = {
        name: value for name, value in {**USUAL, **more}.items() if name != "strength" or "image" in more
    }
    if "image" in more:  # whose size the result has
        del given["width"], given["height"]
    return np.asarray(pipeline(PROMPT, **given).images)


def tasks(provider: str, told: list[str]) -> dict[str, Any]:
    """The image of each task, and what else happens."""
    found: dict[str, Any] = {}
    options: dict[str, Any] = {"provider": provider, "tune": False, "notify": told.append}
    adapters = {"controlnet": sdrt_models.adapter("edges")}
    with StableDiffusionPipeline.from_pretrained("shapes", **options) as pipeline:
        found["text"] = of_text(pipeline)
        found["image"] = of_text(pipeline, image=drawn())
        found["mask"] = of_text(pipeline, image=drawn(), mask_image=mask())
        found["two at once"] = of_text(pipeline, num_images_per_prompt=2, num_inference_steps=1)
        found["without guidance"] = of_text(pipeline, guidance_scale=1)
        found["cancelled"] = cancelled(pipeline)
        found["after it"] = of_text(pipeline)
        pipeline.load_lora_weights(sdrt_models.adapter("moon"), adapter_name="moon")
        found["LoRA"] = of_text(pipeline, num_inference_steps=1)
        pipeline.unload_lora_weights()
        pipeline.load_ip_adapter(sdrt_models.adapter("likeness"))
        found["image prompt"] = of_text(pipeline, ip_adapter_image=drawn(), num_inference_steps=1)
    with StableDiffusionPipeline.from_pretrained("shapes", **options, **adapters) as pipeline:
        found["ControlNet"] = of_text(pipeline, control_image=outline(), num_inference_steps=1)
    return found


def cancelled(pipeline: StableDiffusionPipeline) -> Any:
    """The steps that ran before a run noticed that it was cancelled."""
    done: list[int] = []
    try:
        request = Request(prompt=PROMPT, seed=1, width=SIDE, height=SIDE, num_inference_steps=4)
        for _ in pipeline.stream(request, cancel=lambda: len(done) >= 1):
            done.append(1)
    except RunCancelledError:
        return len(done)
    return -1


def side_by_side() -> list[Any]:
    """The images of two pipelines that run at the same time."""
    made: list[Any] = [None, None]

    def make(place: int) -> None:
        with StableDiffusionPipeline.from_pretrained(
            "shapes", provider="webgpu", tune=False, notify=lambda _: None
        ) as pipeline:
            made[place] = of_text(pipeline, num_inference_steps=1, seed=place)

    threads = [Thread(target=make, args=(place,)) for place in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return made


def main() -> None:
    told: list[str] = []
    own, theirs = tasks("webgpu", told), tasks("cpu", [])
    apart = {name: float(np.abs(own[name] - theirs[name]).max()) * 255 for name in own if name != "cancelled"}
    pair = side_by_side()
    with StableDiffusionPipeline.from_pretrained(
        "shapes", provider="cpu", tune=False, notify=lambda _: None
    ) as pipeline:
        alone = [of_text(pipeline, num_inference_steps=1, seed=place) for place in range(2)]
    together = [float(np.abs(one - other).max()) * 255 for one, other in zip(pair, alone, strict=True)]
    print(
        json.dumps(
            {
                "apart": apart,
                "cancelled": [own["cancelled"], theirs["cancelled"]],
                "together": together,
                "told": told,
            }
        )
    )


if __name__ == "__main__":
    main()
