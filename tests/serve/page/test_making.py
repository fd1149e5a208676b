"""The page makes real images: from text, from an image, and with a painted mask."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.serve.page.browser import (
    LONG,
    blue_square,
    canvas,
    downloaded,
    fill,
    make,
    pixels,
    red,
    wait_for_images,
    wait_for_models,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytest.importorskip("playwright", reason="the page is not tested: playwright is not installed")


def jobs(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}/jobs") as answer:
        listed: list[dict[str, Any]] = json.load(answer)["jobs"]
    return listed


def test_a_picture_is_made_from_text(page: Page) -> None:
    fill(page, prompt="a red circle", num_inference_steps=10, seed=1)
    page.keyboard.press("Control+Enter")
    wait_for_images(page, 1)
    image = downloaded(page)
    assert image.size == (128, 128)
    shape = red(pixels(image))
    assert 300 < shape.sum() < 12_000
    told = page.inner_text("#parameters")
    assert told.startswith("a red circle\nSteps: 10, ")
    assert "Seed: 1," in told
    assert image.text["parameters"] == told  # type: ignore[attr-defined]
    # What is shown is that file, not a preview.
    shown = page.evaluate(
        """() => { const image = document.getElementById("shown"); return [image.src, image.naturalWidth]; }"""
    )
    assert shown[0].startswith("blob:")
    assert shown[1] == 128


def test_a_picture_is_made_before_the_server_has_said_which_models_it_has(page: Page) -> None:
    held: list[Route] = []
    page.route("**/info", lambda route: held.append(route))
    page.reload()
    fill(page, prompt="a red circle", num_inference_steps=2, seed=1)
    page.keyboard.press("Control+Enter")
    wait_for_images(page, 1)
    assert held
    for one in held:
        one.abort()


def test_the_models_own_values_are_shown(page: Page) -> None:
    wait_for_models(page)
    for name, value in (("width", "128"), ("num_inference_steps", "50"), ("guidance_scale", "3")):
        assert page.get_attribute(f"#{name}", "placeholder") == value
    assert page.locator("#scheduler option").first.inner_text() == "DPM++ 2M (the model’s)"
    # Those for models that were trained otherwise are not offered.
    assert page.locator("#scheduler option[value=flow_euler]").count() == 0
    assert page.is_hidden("#controls")


def test_a_job_has_steps_and_previews_and_can_be_cancelled(page: Page, server: str) -> None:
    from playwright.sync_api import expect

    fill(page, prompt="a green triangle", num_inference_steps=150)
    page.click("#make")
    page.wait_for_selector("#shown[src^='data:image/png']")
    assert page.inner_text("#step").startswith("Step ")
    assert " of 150" in page.inner_text("#step")
    assert 0 < page.evaluate("document.getElementById('progress').position") < 1
    page.click("#cancel")
    expect(page.locator("#step")).to_have_text("Cancelled", timeout=LONG)
    assert page.inner_text("#live") == "Cancelled"
    assert jobs(server)[0]["status"] == "cancelled"
    assert page.is_visible("#empty")
    fill(page, num_inference_steps=2)
    make(page)
    assert jobs(server)[0]["status"] == "done"


def test_several_images_of_which_one_is_made_again(page: Page) -> None:
    fill(page, prompt="a red square", num_inference_steps=6, num_images_per_prompt=3, seed=7)
    make(page, 3)
    assert "seed 7" in page.inner_text("#facts")
    page.locator("#gallery button").nth(2).click()
    assert "seed 9" in page.inner_text("#facts")
    many = pixels(downloaded(page))
    fill(page, prompt="something else", num_inference_steps="", num_images_per_prompt="", seed="")
    page.click("#use-settings")
    assert [page.input_value(f"#{name}") for name in ("prompt", "num_inference_steps", "seed")] == [
        *("a red square", "6", "9")
    ]
    assert page.input_value("#num_images_per_prompt") == ""
    make(page)
    # Alone and in a batch, results differ by rounding.
    assert np.abs(pixels(downloaded(page)) - many).mean() < 1


def test_the_last_seed_is_used_again(page: Page) -> None:
    fill(page, prompt="a red circle", num_inference_steps=2)
    assert page.is_disabled("#seed-last")
    make(page)
    page.click("#seed-last")
    assert f"seed {page.input_value('#seed')}," in page.inner_text("#facts")
    page.click("#seed-random")
    assert page.input_value("#seed") == ""


def test_a_seed_of_twenty_digits_stays_exact(page: Page) -> None:
    fill(page, prompt="a red circle", num_inference_steps=2, seed=2**64 - 1)
    make(page)
    assert f"Seed: {2**64 - 1}," in page.inner_text("#parameters")
    assert f"seed {2**64 - 1}," in page.inner_text("#facts")


def test_only_what_is_painted_changes(page: Page, tmp_path: Path) -> None:
    start = blue_square(tmp_path / "start.png")
    page.set_input_files("#image-file", start)
    page.wait_for_selector("#mask")
    fill(page, prompt="a red circle", num_inference_steps=12, seed=3)
    page.fill("#brush", "60")
    _paint(page, [(0.65, 0.65), (0.8, 0.8)])
    painted = canvas(page)
    assert painted.shape == (128, 128)
    make(page)
    before, after = (pixels(image) for image in (_opened(start), downloaded(page)))
    ys, xs = np.nonzero(painted)
    # The mask's edge is blurred by a few pixels.
    inside = (slice(max(0, ys.min() - 24), ys.max() + 24), slice(max(0, xs.min() - 24), xs.max() + 24))
    outside = np.ones((128, 128), bool)
    outside[inside] = False
    assert outside.sum() > 4000
    assert (after[outside] == before[outside]).all()
    assert red(after).sum() > 100
    assert not red(before).any()
    assert "Mask blur" in page.inner_text("#parameters")


def test_an_image_is_the_start_of_another(page: Page) -> None:
    fill(page, prompt="a red circle", num_inference_steps=8, seed=1)
    make(page)
    first = pixels(downloaded(page))
    page.click("#use-image")
    page.wait_for_selector("#start-full")
    fill(page, strength="0.3")
    make(page)
    assert "Denoising strength: 0.3" in page.inner_text("#parameters")
    assert np.abs(pixels(downloaded(page)) - first).mean() < 20
    page.click("#image-remove")
    make(page)
    assert "Denoising strength" not in page.inner_text("#parameters")


def test_a_lora_changes_the_image(page: Page) -> None:
    fill(page, prompt="a yellow moon", num_inference_steps=8, seed=1)
    make(page)
    without = pixels(downloaded(page))
    page.click("#lora-add")
    assert page.inner_text("#lora-list span") == "moon"
    page.fill("#lora-list input", "0.9")
    make(page)
    assert "<lora:moon:0.9>" in page.inner_text("#parameters")
    assert np.abs(pixels(downloaded(page)) - without).mean() > 1


def test_images_for_a_controlnet_and_an_image_prompt(
    open_page: Callable[..., Page], server_with_guides: str, tmp_path: Path
) -> None:
    page = open_page(server_with_guides)
    wait_for_models(page)
    guide = blue_square(tmp_path / "guide.png")
    assert page.locator("#controls li span").all_inner_texts() == ["edges"]
    assert page.locator("#image-prompts li span").all_inner_texts() == ["likeness"]
    page.set_input_files("#controls input[type=file]", guide)
    page.select_option("#controls select", "canny")
    page.set_input_files("#image-prompts input[type=file]", guide)
    page.fill("#image-prompts input[type=number]", "0.5")
    fill(page, prompt="a red square", num_inference_steps=4, seed=1)
    make(page)
    told = page.inner_text("#parameters")
    assert "edges" in told
    assert "canny" in told
    assert "IP-Adapter scale: 0.5" in told
    page.click("#controls button:text('Remove')")
    make(page)
    assert "canny" not in page.inner_text("#parameters")


def _paint(page: Page, places: list[tuple[float, float]]) -> None:
    """Draw a line through places, given as shares of the canvas's sides."""
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask").bounding_box()
    assert box is not None
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def _opened(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.copy()
