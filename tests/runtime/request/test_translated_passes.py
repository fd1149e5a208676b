"""Steps and second passes of A1111, Forge and SD.Next, in the labels of sdrt."""

from __future__ import annotations

import numpy as np
import pytest

from sdrt import Request
from sdrt.request.labels import settings_values
from sdrt.request.translated import Translation
from sdrt.request.translation import translate

IMAGE = np.zeros((8, 8, 3), np.uint8)
BASE = {"Steps": "20", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "512x512", "RNG": "CPU"}


def of(more: dict[str, str]) -> Translation:
    return translate(BASE | more)


def a1111_steps(steps: int, strength: float, *, hires: bool) -> tuple[int, int]:
    """A1111's number of planned steps, and how many of these run, with a sampler of k-diffusion."""
    if hires:
        return (int(steps / min(strength, 0.999)), steps)
    return steps, int(min(strength, 0.999) * steps) + 1


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.35, 0.5, 0.55, 0.7, 0.75, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("steps", [1, 8, 20, 23, 49, 50])
def test_as_many_steps_run_as_in_a1111(steps: int, strength: float) -> None:
    labels = {"Steps": str(steps), "Denoising strength": str(strength)}
    values = settings_values(of(labels).texts)
    request = Request(prompt="a", num_inference_steps=steps, image=IMAGE, strength=values["strength"])
    assert (steps, request.num_steps) == a1111_steps(steps, strength, hires=False)

    second = settings_values(of(labels | {"Hires upscale": "2", "Hires upscaler": "Latent"}).texts)
    own = {name: second[name] for name in ("hires_scale", "hires_strength", "hires_steps")}
    request = Request(prompt="a", num_inference_steps=steps, **own)
    assert (request.hires_steps, request.num_hires_steps) == a1111_steps(steps, strength, hires=True)


def test_the_steps_of_sdrt_s_own_images_stay() -> None:
    labels = {"Denoising strength": "0.7", "Hires upscale": "1.7", "Version": "sdrt 0.1.0"}
    assert of(labels).texts == BASE | labels


@pytest.mark.parametrize(
    ("more", "size", "scale", "differ"),
    [
        ({"Hires upscale": "2"}, (512, 512), 2.0, []),
        ({"Hires upscaler": "Latent"}, (512, 512), 2.0, []),
        ({"Hires resize": "768x768"}, (512, 512), 1.5, []),
        ({"Hires resize": "1024x0"}, (512, 512), 2.0, []),
        ({"Hires resize": "768x1024"}, (512, 512), 2.0, ["Hires resize"]),
        ({"Hires resize": "0x0", "Hires upscale": "1.5"}, (512, 512), 1.5, []),
        ({"First pass size": "512x512", "Size": "1024x1024"}, (512, 512), 2.0, []),
        ({"First pass size": "0x0", "Size": "1024x1024"}, (512, 512), 2.0, []),
        # A1111 cuts 870 pixels to 864; sdrt would round them to 872.
        ({"Hires upscale": "1.7"}, (512, 512), 864 / 512, []),
        ({"Hires upscale": "2", "Hires upscaler": "R-ESRGAN 4x+"}, (512, 512), 2.0, ["Hires upscaler"]),
        ({"Hires upscale": "2", "Hires sampler": "Euler"}, (512, 512), 2.0, []),
        ({"Hires upscale": "2", "Hires sampler": "DDIM"}, (512, 512), 2.0, []),
        ({"Hires upscale": "2", "Hires sampler": "no such sampler"}, (512, 512), 2.0, ["Hires sampler"]),
        (
            {"Hires upscale": "2", "Hires schedule type": "none such"},
            (512, 512),
            2.0,
            ["Hires schedule type"],
        ),
        ({"Hires upscale": "2", "Hires CFG Scale": "7.0"}, (512, 512), 2.0, []),
        ({"Hires upscale": "2", "Hires CFG Scale": "5"}, (512, 512), 2.0, ["Hires CFG Scale"]),
        ({"Hires upscale": "2", "Hires prompt": ""}, (512, 512), 2.0, []),
        ({"Hires upscale": "2", "Hires prompt": "a dog"}, (512, 512), 2.0, ["Hires prompt"]),
        ({"Hires upscale": "2", "Hires checkpoint": "x"}, (512, 512), 2.0, ["Hires checkpoint"]),
        ({"Hires upscale": "2", "Hires Module 1": "Use same choices"}, (512, 512), 2.0, []),
        ({"Hires scale": "2", "Hires strength": "0.5", "Refine": "True"}, (512, 512), 2.0, []),
    ],
)
def test_the_second_pass(
    more: dict[str, str], size: tuple[int, int], scale: float, differ: list[str]
) -> None:
    found = of({"Denoising strength": "0.5"} | more)
    values = settings_values(found.texts)
    assert (values["size"], values["hires_scale"]) == (size, pytest.approx(scale))
    assert [one.label for one in found.differences] == differ
    assert values.get("hires_upscaler", "latent") in ("latent", "lanczos")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"Hires sampler": "DPM++ 2M"}, "DPM++ 2M Karras"),
        ({"Hires sampler": "DPM++ 2M", "Hires schedule type": "Exponential"}, "DPM++ 2M Exponential"),
        ({"Hires sampler": "DPM++ 2M", "Schedule type": "Simple"}, "DPM++ 2M Simple"),
        ({"Hires schedule type": "Karras"}, "Euler Karras"),
        ({"Hires sampler": "DDIM"}, "DDIM leading"),
        ({"Hires sampler": "DPM++ 2M", "Version": "v1.8.0"}, "DPM++ 2M Normal"),
        ({"Hires sampler": "Use same sampler", "Hires schedule type": "Use same scheduler"}, None),
        ({"Hires sampler": "Euler"}, None),
        ({"Hires sampler": "DPM++ 2M", "Version": "sdrt 0.1.0"}, "DPM++ 2M"),
    ],
)
def test_the_sampler_of_the_second_pass(more: dict[str, str], named: str | None) -> None:
    found = of({"Hires upscale": "2", "Denoising strength": "0.5"} | more)
    values = settings_values(found.texts)
    assert (values.get("hires_scheduler"), found.differences) == (named, [])
    alone = settings_values(of(more).texts) if "Version" not in more else {}
    assert "hires_scheduler" not in alone
