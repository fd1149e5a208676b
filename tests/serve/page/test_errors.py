"""Errors stand beside the field that they name, and the page asks for the key that a server needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serve.page.browser import (
    LONG,
    blue_square,
    fill,
    make,
    wait_for_images,
    wait_for_models,
    with_text,
)
from tests.serve.page.conftest import KEY

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full

pytest.importorskip("playwright", reason="the page is not tested: playwright is not installed")


def error_of(page: Page, field: str) -> str:
    """The error that stands at a field."""
    return page.locator(f"[data-field='{field}'] > .field-error").inner_text()


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("width", "13", "width is 13: expected a multiple of 8"),
        ("height", "99999", "height is 99999: expected a multiple of 8"),
        ("num_inference_steps", "1000", "num_inference_steps is 1000: this server makes at most 150"),
        ("num_inference_steps", "2.5", "integer"),
        ("num_images_per_prompt", "0", "num_images_per_prompt"),
        ("guidance_scale", "1e9", "guidance_scale"),
        ("seed", "one", "Expected a whole number."),
        ("seed", "99999999999999999999999", "seed"),
    ],
)
def test_an_error_stands_at_its_field(page: Page, field: str, value: str, told: str) -> None:
    wait_for_models(page)
    fill(page, prompt="a red circle", **{field: value})
    page.click("#make")
    page.wait_for_selector(f"[data-field={field}] > .field-error")
    assert told in error_of(page, field)
    assert page.inner_text("#form-error") == ""
    # A screen reader finds it: the field has the focus, is invalid, and is described by the error.
    focused = page.locator(":focus")
    assert focused.get_attribute("id") == field
    assert focused.get_attribute("aria-invalid") == "true"
    assert f"error-{field}" in (focused.get_attribute("aria-describedby") or "")
    assert page.locator("#gallery li").count() == 0


def test_an_error_goes_away_when_its_field_changes(page: Page) -> None:
    wait_for_models(page)
    fill(page, prompt="a red circle", num_inference_steps=2, width=13)
    page.click("#make")
    page.wait_for_selector(".field-error")
    fill(page, width=64)
    assert page.locator(".field-error").count() == 0
    assert page.get_attribute("#width", "aria-invalid") is None
    make(page)
    assert page.inner_text("#facts").startswith("64×128")


def test_an_error_that_the_worker_finds_stands_at_its_field_too(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#image-file", blue_square(tmp_path / "start.png"))
    page.wait_for_selector("#mask")
    fill(page, prompt="a red circle", num_inference_steps=8, strength="0.05")
    page.click("#make")
    page.wait_for_selector(".field-error")
    assert page.locator(":focus").get_attribute("id") in ("strength", "num_inference_steps")


def test_a_file_that_is_no_image_is_refused_at_the_image(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    (tmp_path / "notes.png").write_text("no image")
    page.set_input_files("#image-file", tmp_path / "notes.png")
    page.wait_for_selector("#start-full")
    assert "cannot show" in page.inner_text("#image-note")
    fill(page, prompt="a red circle", num_inference_steps=2)
    page.click("#make")
    page.wait_for_selector("[data-field=image] > .field-error")
    assert "not an image" in error_of(page, "image")


def test_a_mask_file_that_is_no_image_is_refused_at_the_mask(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    page.set_input_files("#image-file", blue_square(tmp_path / "start.png"))
    page.wait_for_selector("#mask")
    (tmp_path / "notes.png").write_text("no image")
    page.set_input_files("#mask-file", tmp_path / "notes.png")
    page.wait_for_selector("[data-field=mask_image] > .field-error")
    assert "cannot show the mask" in error_of(page, "mask_image")


def test_a_further_setting_that_is_wrong_is_marked_and_can_be_removed(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    text = "a red circle\nSteps: 2, Sampler: Euler, CFG scale: 3, Seed: 1, Size: 64x64, Clip skip: 90"
    page.set_input_files("#settings-file", with_text(tmp_path / "made.png", text))
    page.wait_for_selector("#extra-list li")
    page.click("#make")
    page.wait_for_selector("[data-field=clip_skip] > .field-error")
    page.click("#extra-list button")
    assert page.is_hidden("#extras")
    make(page)


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    wait_for_models(page)
    fill(page, prompt="a red circle")
    page.route("**/jobs", lambda route: route.abort())
    page.click("#make")
    page.wait_for_selector("#form-error:not(:empty)")
    assert page.inner_text("#form-error") == "The server cannot be reached."
    assert page.get_attribute("#make", "aria-disabled") == "false"


def test_a_full_queue_is_told_with_the_servers_words(page: Page) -> None:
    wait_for_models(page)
    fill(page, prompt="a red circle")
    full = {
        "detail": "64 jobs are waiting, and no more of yours may: try again in 3 s",
        "field": None,
        "code": "queue_full",
    }
    page.route("**/jobs", lambda route: route.fulfill(status=429, json=full))
    page.click("#make")
    page.wait_for_selector("#form-error:not(:empty)")
    assert page.inner_text("#form-error") == full["detail"]


def test_a_broken_stream_of_events_is_taken_up_again(page: Page) -> None:
    wait_for_models(page)
    broken: list[str] = []

    def breaks(route: object) -> None:
        broken.append("once")
        if len(broken) == 1:
            route.fulfill(status=200, body="event: status\ndata: {")  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/events", breaks)
    fill(page, prompt="a red circle", num_inference_steps=2)
    make(page)
    assert len(broken) == 2


def test_comments_in_the_events_are_passed_over(page: Page) -> None:
    from playwright.sync_api import expect

    wait_for_models(page)
    seen: list[str] = []

    def waits(route: object) -> None:
        queued = 'event: status\ndata: {"status": "queued", "position": 3}\n\n'
        if seen:
            route.continue_()  # type: ignore[attr-defined]
        else:
            body = f": waiting\n\n{queued}: waiting\n\n"
            route.fulfill(status=200, body=body)  # type: ignore[attr-defined]

    page.route("**/events", waits)
    fill(page, prompt="a red circle", num_inference_steps=2)
    page.click("#make")
    expect(page.locator("#step")).to_have_text("Waiting: 3 before this one", timeout=LONG)
    seen.append("once")
    wait_for_images(page, 1)


def test_the_page_asks_for_the_key_until_it_is_right(
    open_page: Callable[..., Page], server_with_key: str
) -> None:
    page = open_page(server_with_key)
    page.wait_for_selector("#key-dialog[open]")
    assert page.locator(":focus").get_attribute("id") == "key"
    page.fill("#key", "a-key-of-another-server")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-error:not(:empty)")
    assert page.inner_text("#key-error") == "The server does not know this key."
    page.fill("#key", KEY)
    page.click("#key-dialog button.main")
    wait_for_models(page)
    fill(page, prompt="a red circle", num_inference_steps=2)
    make(page)
    # It is kept for this tab, and neither in its address nor in a cookie.
    page.reload()
    wait_for_images(page, 1)
    assert KEY not in page.url
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length") == 0


def test_without_the_key_the_page_says_what_is_missing(
    open_page: Callable[..., Page], server_with_key: str
) -> None:
    page = open_page(server_with_key)
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#form-error:not(:empty)", timeout=LONG)
    assert "no key" in page.inner_text("#form-error")
    page.click("#key-button")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    wait_for_models(page)
