"""A1111's control modes, and what each ControlNet of several does for itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from sdrt.request.control_modes import CONTROL_MODES
from tests.export.control.images import control_image, made

ROUNDING = 1e-4
"""The weights are multiplied before the convolution instead of after it."""


def weighted(folder: Path, weights: Sequence[float], path: Path) -> Path:
    """The same ControlNet with other weights for its outputs, from the finest to the coarsest."""
    module = diffusers.ControlNetModel.from_pretrained(folder)
    layers = [*module.controlnet_down_blocks, module.controlnet_mid_block]
    assert len(layers) == len(weights)
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.mul_(weight)
            layer.bias.mul_(weight)
    module.save_pretrained(path)
    return path


def soft(count: int) -> list[float]:
    """The weights of sd-webui-controlnet 1.1.455 (`hook.py`) for its "soft injection", which end at 1."""
    return [0.825**6, 0.825**5, 0.825**4, 0.825**3, 0.825**2, 0.825, 1][-count:]


@pytest.mark.parametrize(
    ("count", "ends"), [(13, (0.825**12, 1.0)), (10, (0.825**12, 0.825**3)), (7, (0.825**6, 1.0))]
)
def test_networks_of_sd_and_sdxl_have_the_weights_of_the_extension(
    count: int, ends: tuple[float, float]
) -> None:
    """For SDXL it takes the first of the 13 for Stable Diffusion 1; it has none for smaller networks."""
    weights = CONTROL_MODES["prompt"].weights(count)
    assert (weights[0], weights[-1]) == pytest.approx(ends)
    assert len(weights) == count


@pytest.fixture(scope="module")
def count(controlnets: list[Path]) -> int:
    module = diffusers.ControlNetModel.from_pretrained(controlnets[0])
    return len(module.controlnet_down_blocks) + 1


GIVEN: dict[str, Any] = {"control_image": control_image(), "controlnet_conditioning_scale": 3.0}


def test_the_prompt_is_more_important(
    plain: Path, controlnets: list[Path], count: int, tmp_path: Path
) -> None:
    found = made(plain, controlnets[:1], control_mode="prompt", **GIVEN)
    wanted = made(plain, [weighted(controlnets[0], soft(count), tmp_path)], **GIVEN)
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)
    assert np.abs(found - made(plain, controlnets[:1], **GIVEN)).max() > 0.02


def test_the_controlnet_is_more_important(
    plain: Path, controlnets: list[Path], count: int, tmp_path: Path
) -> None:
    """It guides only the half with the prompt, as in guess mode."""
    ratio = np.array(soft(count)) / np.logspace(-1, 0, count)
    found = made(plain, controlnets[:1], control_mode="control", **GIVEN)
    other = weighted(controlnets[0], list(ratio), tmp_path)
    np.testing.assert_allclose(found, made(plain, [other], guess_mode=True, **GIVEN), atol=ROUNDING)
    assert np.abs(found - made(plain, controlnets[:1], control_mode="prompt", **GIVEN)).max() > 0.01


def test_each_of_several_has_its_own(
    plain: Path, controlnets: list[Path], count: int, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "control_image": [control_image()] * 2,
        "controlnet_conditioning_scale": [3.0, 2.0],
    }
    other = weighted(controlnets[0], soft(count), tmp_path)
    found = made(plain, controlnets, control_mode=["prompt", "balanced"], **given)
    np.testing.assert_allclose(found, made(plain, [other, controlnets[1]], **given), atol=ROUNDING)
    # The one guides both halves of the batch, the other only the half with the prompt, in any order.
    mixed = made(plain, controlnets, control_mode=["control", "balanced"], **given)
    turned: dict[str, Any] = {**given, "controlnet_conditioning_scale": [2.0, 3.0]}
    again = made(plain, controlnets[::-1], control_mode=["balanced", "control"], **turned)
    np.testing.assert_allclose(mixed, again, atol=ROUNDING)
    assert np.abs(mixed - found).max() > 0.01


def test_rows_of_their_own_are_the_same(plain: Path, controlnets: list[Path]) -> None:
    """With `low_vram`, the denoiser runs one row at a time, and not every ControlNet guides each."""
    from sdrt import StableDiffusionPipeline

    call: dict[str, Any] = {
        "control_image": [control_image()] * 2,
        "control_mode": ["control", "balanced"],
        "num_inference_steps": 2,
        "seed": 0,
        "output_type": "np",
    }
    with StableDiffusionPipeline.from_pretrained(
        plain, controlnet=controlnets, provider="cpu", low_vram=True, notify=lambda _: None
    ) as pipeline:
        low = np.asarray(pipeline("a red circle", **call).images)
    np.testing.assert_allclose(low, made(plain, controlnets, **call), atol=ROUNDING)
