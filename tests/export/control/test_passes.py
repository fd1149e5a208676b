"""ControlNets in tasks of several passes: each pass sees the control image as one would give it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from sdrt.cli import main
from sdrt.images.arrays import to_bytes
from sdrt.images.metadata import Parameters, read_parameters
from sdrt.run.multi_pass import _SEED_OF_PASS
from sdrt.tasks.outpainting import grown, parse_growth, passes
from tests.export.control.images import control_image, made

STEPS: dict[str, Any] = {"num_inference_steps": 4, "seed": 3}


def given_image(width: int = 48, height: int = 40) -> Image.Image:
    drawn = Image.new("RGB", (width, height), (200, 120, 40))
    ImageDraw.Draw(drawn).rectangle((10, 10, 30, 24), fill=(20, 60, 220))
    return drawn


def opened(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image)


@pytest.mark.parametrize("images", [1, 2])
def test_a_second_pass_scales_it_to_its_own_size(plain: Path, controlnets: list[Path], images: int) -> None:
    given: dict[str, Any] = {"control_image": control_image(), "control_guidance_end": 0.8, **STEPS}
    given["num_images_per_prompt"] = images
    small = made(plain, controlnets[:1], **given)
    large = [Image.fromarray(to_bytes(one)).resize((96, 72), Image.Resampling.LANCZOS) for one in small]
    by_hand = [
        made(
            plain,
            controlnets[:1],
            **given | {"num_images_per_prompt": 1, "seed": 3 + index},
            image=one,
            strength=0.7,
            # In image to image, diffusers' default is another.
            controlnet_conditioning_scale=1.0,
        )[0]
        for index, one in enumerate(large)
    ]
    found = made(plain, controlnets[:1], hires_scale=1.5, hires_upscaler="lanczos", **given)
    # A batch adds in another order.
    np.testing.assert_allclose(found, by_hand, atol=0 if images == 1 else 1e-4)
    other = made(plain, [], hires_scale=1.5, hires_upscaler="lanczos", width=64, height=48, **STEPS)
    assert np.abs(found[0] - other[0]).max() > 0.02


def test_outpainting_is_inpainting_on_the_larger_canvas(plain: Path, controlnets: list[Path]) -> None:
    growth = parse_growth("left=16,bottom=8", 48, 40)
    canvas, mask = grown(np.asarray(given_image()), growth)
    given: dict[str, Any] = {"control_image": control_image(), **STEPS}
    found = made(plain, controlnets[:1], image=given_image(), outpaint="left=16,bottom=8", **given)
    by_hand = made(plain, controlnets[:1], image=canvas, mask_image=mask, composite=False, **given)
    assert found.shape == by_hand.shape == (1, 48, 64, 3)
    # Beside the old part, the new one of an outpainting fades into it. Here it is all new, but for a float's rounding.
    np.testing.assert_allclose(found[0, :, :4], by_hand[0, :, :4], atol=1e-6)
    assert (
        np.abs(found - made(plain, [], image=given_image(), outpaint="left=16,bottom=8", **STEPS)).max()
        > 0.02
    )


def test_each_part_of_an_outpainting_sees_its_own(plain: Path, controlnets: list[Path]) -> None:
    """A control image shows the whole result. This one grows by more than half of the image, in two parts."""
    text = "left=40,top=8"
    first, second = passes(parse_growth(text, 48, 40), 48, 40)
    given: dict[str, Any] = {**STEPS, "output_type": "np"}
    whole = np.asarray(control_image().resize((88, 48), Image.Resampling.LANCZOS))
    part = whole[second.top :, second.left :]
    middle = made(plain, controlnets[:1], image=given_image(), outpaint=first, control_image=part, **given)
    by_hand = made(
        plain,
        controlnets[:1],
        image=to_bytes(middle[0]),
        outpaint=second,
        control_image=whole,
        **given | {"seed": 3 + _SEED_OF_PASS},
    )
    found = made(
        plain, controlnets[:1], image=given_image(), outpaint=text, control_image=control_image(), **given
    )
    np.testing.assert_array_equal(found, by_hand)


def test_the_command(
    plain: Path, controlnets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    control_image().save("edges.png")
    given_image().save("given.png")
    net = f"--controlnet={controlnets[0]}"
    options = ["-m", str(plain), net, "--control-image", "edges.png", "-i", "given.png"]
    more = ["--outpaint", "left=16,bottom=8", "--steps", "2", "--seed", "0", "--control-preview", "map.png"]
    result = CliRunner().invoke(main, ["generate", "a", *options, *more, "-o", "a.png"])
    assert result.exit_code == 0, result.output
    assert [opened(name).shape for name in ("map.png", "a.png")] == [(48, 64, 3)] * 2
    text = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    # diffusers' default with a mask.
    assert "Weight: 0.5" in text["ControlNet 0"]
    again = CliRunner().invoke(main, ["generate", "--from", "a.png", *options, "-o", "b.png"])
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(opened("b.png"), opened("a.png"))
