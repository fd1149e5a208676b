"""Images that the user gives: dropped, pasted, painted on, and with the settings that they tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.serve.page.browser import (
    blue_square,
    canvas,
    downloaded,
    drop,
    fill,
    make,
    pixels,
    wait_for_images,
    wait_for_models,
    with_text,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full

pytest.importorskip("playwright", reason="the page is not tested: playwright is not installed")

_TEXT = """a blue square
Negative prompt: red
Steps: 6, Sampler: Euler a, Schedule type: Karras, CFG scale: 2.5, Seed: 18446744073709551615, Size: 64x72, \
Model: shapes, Clip skip: 2, RNG: CPU, Version: sdrt 0.1.0"""


def value(page: Page, name: str) -> str:
    return page.input_value(f"#{name}")


def test_the_settings_of_a_dropped_image_fill_the_form(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    fill(page, num_images_per_prompt=3)
    drop(page, with_text(tmp_path / "made.png", _TEXT), "settings")
    page.wait_for_selector("#settings-note:not(:empty)")
    assert value(page, "prompt") == "a blue square"
    assert value(page, "negative_prompt") == "red"
    for name, expected in (
        *(("num_inference_steps", "6"), ("guidance_scale", "2.5"), ("width", "64"), ("height", "72")),
        *(("scheduler", "euler_a"), ("spacing", "karras"), ("seed", "18446744073709551615")),
        ("num_images_per_prompt", ""),
    ):
        assert value(page, name) == expected, name
    assert page.inner_text("#extra-list span") == "clip_skip: 1"
    assert page.inner_text("#settings-note") == "Settings of made.png, made by sdrt, are in the form."
    assert page.is_hidden("#drop")
    make(page)
    told = page.inner_text("#parameters").splitlines()
    assert told[:2] == ["a blue square", "Negative prompt: red"]
    own = dict(one.split(": ", 1) for one in told[2].split(", "))
    asked = dict(one.split(": ", 1) for one in _TEXT.splitlines()[2].split(", "))
    assert own | asked == own | {"Version": asked["Version"]}


def test_what_the_page_cannot_do_as_the_image_says_is_named(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    text = (
        "a cat <lora:none:1>\nSteps: 20, Sampler: Foo, CFG scale: 7, Seed: 1, Size: 64x64, Model: sd15, "
        "Denoising strength: 0.5, Version: v1.10.1"
    )
    drop(page, with_text(tmp_path / "made.png", text), "settings")
    page.wait_for_selector("#settings-note:not(:empty)")
    note = page.inner_text("#settings-note")
    for part in ("Sampler (Foo)", "Model (sd15)", "RNG", "add that one"):
        assert part in note
    assert value(page, "scheduler") == ""


def test_an_image_that_says_nothing_is_told_beside_the_button(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    fill(page, prompt="what I typed")
    drop(page, blue_square(tmp_path / "plain.png"), "settings")
    page.wait_for_selector("[data-field=file] > .field-error")
    assert page.inner_text("[data-field=file] > .field-error") == "the file does not say how it was made"
    assert value(page, "prompt") == "what I typed"


def test_the_image_that_was_downloaded_makes_itself_again(page: Page, tmp_path: Path) -> None:
    fill(page, prompt="a red circle, <em>not HTML</em>", num_inference_steps=3, seed=11)
    make(page)
    first = downloaded(page)
    first.save(tmp_path / "again.png", pnginfo=_text_of(first))
    page.reload()
    wait_for_images(page, 1)
    drop(page, tmp_path / "again.png", "settings")
    page.wait_for_selector("#settings-note:not(:empty)")
    make(page)
    assert (pixels(downloaded(page)) == pixels(first)).all()


def test_an_image_can_be_dropped_or_pasted_to_start_from(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    drop(page, blue_square(tmp_path / "one.png"), "image")
    page.wait_for_selector("#start-full")
    assert page.inner_text("#image-note") == "one.png, 128×128"
    page.click("#image-remove")
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(64, 96);
            canvas.getContext("2d");
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([await canvas.convertToBlob()], "pasted.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }"""
    )
    page.wait_for_selector("#start-full")
    assert page.inner_text("#image-note") == "pasted.png, 64×96"
    assert page.get_attribute("#width", "placeholder") == "64"


def test_a_large_photo_is_made_to_fit(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (3000, 2000), "green").save(photo)
    page.set_input_files("#image-file", photo)
    page.wait_for_selector("#start-full")
    note = page.inner_text("#image-note")
    assert "made smaller to 2508×1672" in note
    assert "usual size" in note
    assert (value(page, "width"), value(page, "height")) == ("160", "104")
    fill(page, prompt="a red circle", num_inference_steps=2)
    make(page)
    assert page.inner_text("#facts").startswith("160×104")


def test_the_mask_is_painted_erased_and_cleared(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#image-file", blue_square(tmp_path / "start.png"))
    page.wait_for_selector("#mask")
    assert page.get_attribute("#strength", "placeholder") == "0.8"
    page.click("#mask", position={"x": 50, "y": 50})
    first = canvas(page)
    assert first.any()
    assert page.get_attribute("#strength", "placeholder") == "1"  # the model's, with a mask
    page.fill("#brush", "80")
    page.click("#mask", position={"x": 200, "y": 200})
    second = canvas(page)
    assert (second > 0).sum() > 3 * (first > 0).sum()
    page.click("#mask-erase")
    page.fill("#brush", "100")
    assert page.get_attribute("#mask-erase", "aria-pressed") == "true"
    page.click("#mask", position={"x": 200, "y": 200})
    assert not canvas(page)[60:, 60:].any()
    assert canvas(page).any()
    page.click("#mask-clear")
    assert not canvas(page).any()


def test_a_finger_paints(open_page: Callable[..., Page], server: str, tmp_path: Path) -> None:
    page = open_page(server, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.set_input_files("#image-file", blue_square(tmp_path / "start.png"))
    page.wait_for_selector("#mask")
    page.tap("#mask", position={"x": 100, "y": 100})
    assert canvas(page).any()
    # A stroke must not scroll the page.
    assert page.evaluate("getComputedStyle(document.getElementById('mask')).touchAction") == "none"


def test_a_mask_file_stands_for_painting(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#image-file", blue_square(tmp_path / "start.png"))
    page.wait_for_selector("#mask")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 64, 128, 128))
    mask.save(tmp_path / "mask.png")
    page.set_input_files("#mask-file", tmp_path / "mask.png")
    while not canvas(page).any():
        page.wait_for_timeout(50)
    assert (canvas(page) == np.asarray(mask)).all()


def _text_of(image: Image.Image) -> object:
    from sdrt.images.metadata import save_options

    return save_options("PNG", image.text["parameters"])["pnginfo"]  # type: ignore[attr-defined]
