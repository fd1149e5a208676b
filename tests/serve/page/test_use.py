"""The page with the keyboard alone, on a phone, in the dark, and after a reload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full

pytest.importorskip("playwright", reason="the page is not tested: playwright is not installed")

_PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def focus_of(page: Page) -> dict[str, Any]:
    """The element that has the focus: its id, its name, and whether it can be seen that it has it."""
    found: dict[str, Any] = page.evaluate(
        """() => {
            const at = document.activeElement;
            const { outlineStyle, outlineWidth } = getComputedStyle(at);
            const box = at.getBoundingClientRect();
            const bar = document.querySelector(".actions");
            const shown = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return {
                id: at.id,
                outlined: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
                covered: !bar.contains(at) && bar.contains(shown),
                name: at.labels?.[0]?.innerText || at.ariaLabel || at.innerText,
            };
        }"""
    )
    return found


def tab_to(page: Page, id: str) -> list[dict[str, Any]]:
    """Press Tab until an element has the focus. Returns all that had it."""
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(focus_of(page))
        if seen[-1]["id"] == id:
            return seen
    raise AssertionError(f"Tab does not come to {id}, only to {seen}")


def test_an_image_is_made_with_the_keyboard_alone(page: Page) -> None:
    wait_for_models(page)
    assert focus_of(page)["id"] == "prompt"
    page.keyboard.type("a red circle")
    seen = tab_to(page, "num_inference_steps")
    page.keyboard.type("3")
    seen += tab_to(page, "lora-add")
    page.keyboard.press("Enter")  # which gives the weight the focus
    page.keyboard.press("Control+A")
    page.keyboard.type("0.5")
    seen += tab_to(page, "make")
    page.keyboard.press("Enter")
    wait_for_images(page, 1)
    assert focus_of(page)["id"] == "make"
    assert "Steps: 3" in page.inner_text("#parameters")
    assert "<lora:moon:0.5>" in page.inner_text("#parameters")
    seen += tab_to(page, "use-settings")
    page.keyboard.press("Enter")
    assert focus_of(page)["id"] == "prompt"
    order = [one["id"] for one in seen if one["id"]]
    assert order[:9] == [
        *("negative_prompt", "model", "num_images_per_prompt", "width", "height", "num_inference_steps"),
        *("guidance_scale", "seed", "seed-random"),
    ]
    for one in seen:
        assert one["outlined"], one
        assert one["name"], one
        assert not one["covered"], one


def test_files_are_chosen_and_masks_given_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    start = blue_square(tmp_path / "start.png")
    # Playwright takes choosers over while somebody listens: once for all, or the next could open on the screen.
    page.on("filechooser", lambda chooser: None)
    for button, file in (("image-choose", start), ("mask-choose", start)):
        page.focus("#prompt")
        tab_to(page, button)
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(file)
        page.wait_for_selector("#mask")
    page.focus("#prompt")
    tab_to(page, "mask-erase")
    page.keyboard.press("Space")
    assert page.get_attribute("#mask-erase", "aria-pressed") == "true"
    tab_to(page, "image-remove")
    page.keyboard.press("Enter")
    assert focus_of(page)["id"] == "image-choose"


def test_a_run_is_cancelled_with_the_keyboard(page: Page) -> None:
    from playwright.sync_api import expect

    fill(page, prompt="a red circle", num_inference_steps=150)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#step")).to_contain_text("of 150", timeout=LONG)
    tab_to(page, "cancel")
    page.keyboard.press("Enter")
    expect(page.locator("#step")).to_have_text("Cancelled", timeout=LONG)
    assert focus_of(page)["id"] == "make"


def test_every_control_has_a_name(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    page.set_input_files("#image-file", blue_square(tmp_path / "start.png"))
    page.click("#lora-add")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, textarea, button, canvas, a")]
            .filter((one) => !(one.labels?.length || one.ariaLabel || one.innerText?.trim() || one.textContent.trim()))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []


def test_progress_is_told_to_screen_readers(page: Page) -> None:
    wait_for_models(page)
    page.evaluate(
        """() => {
            window.told = [];
            const live = document.getElementById("live");
            new MutationObserver(() => window.told.push(live.textContent)).observe(live, { childList: true });
        }"""
    )
    assert page.get_attribute("#live", "aria-live") == "polite"
    fill(page, prompt="a red circle", num_inference_steps=12)
    make(page)
    # Quarters, not every step.
    assert page.evaluate("window.told") == [*(f"Step {step} of 12" for step in (3, 6, 9, 12)), "Image made"]


def test_a_phone_needs_no_scrolling_sideways(
    open_page: Callable[..., Page], server: str, tmp_path: Path
) -> None:
    page = open_page(server, **_PHONE)

    def check(state: str) -> None:
        wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        assert max(wide) <= 360, state
        past = page.evaluate(
            """() => [...document.querySelectorAll("main *, .actions *")]
                .filter((one) => one.offsetParent && one.getBoundingClientRect().right > 360.5)
                .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert past == [], state

    wait_for_models(page)
    check("empty")
    page.click("#lora-add")
    page.set_input_files(
        "#image-file", blue_square(tmp_path / "a-file-with-a-very-long-name-of-one-word.png")
    )
    page.wait_for_selector("#mask")
    check("with an image and a LoRA")
    page.click("#image-remove")
    fill(page, prompt="red" * 80, num_inference_steps=3, seed=2**64 - 1, width=13)
    page.click("#make")
    page.wait_for_selector(".field-error")
    check("with an error")
    fill(page, width=64, height=512)
    make(page)
    check("with an image")
    # The buttons stay in reach beside the image.
    assert page.evaluate("document.getElementById('make').getBoundingClientRect().bottom <= innerHeight")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast(
    open_page: Callable[..., Page], server: str, tmp_path: Path, scheme: Any
) -> None:
    page = open_page(server, color_scheme=scheme)
    fill(page, prompt="a red circle", num_inference_steps=2)
    make(page)
    fill(page, width=13)
    page.click("#make")
    page.wait_for_selector(".field-error")
    for selector in (
        ".hint",
        ".field-error",
        "#make",
        "#use-image",
        "label",
        "#parameters",
        "#settings-choose",
    ):
        assert _contrast(page, selector) >= 4.5, selector
    assert _contrast(page, "#width", "::placeholder") >= 4.5


def _contrast(page: Page, selector: str, pseudo: str = "") -> float:
    """The contrast of a text and what is behind it, as WCAG defines it."""
    colours: list[str] = page.evaluate(
        """([selector, pseudo]) => {
            let at = document.querySelector(selector);
            const text = getComputedStyle(at, pseudo || null).color;
            while (at && getComputedStyle(at).backgroundColor === "rgba(0, 0, 0, 0)") at = at.parentElement;
            return [text, getComputedStyle(at ?? document.body).backgroundColor];
        }""",
        [selector, pseudo],
    )
    light = sorted(_luminance(one) for one in colours)
    return (light[1] + 0.05) / (light[0] + 0.05)


def _luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour[4:-1].split(", ")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_dark_page_is_dark(open_page: Callable[..., Page], server: str) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = open_page(server, color_scheme=scheme)
        shades[scheme] = _luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades["dark"] < 0.05 < 0.8 < shades["light"]


def test_nothing_moves_for_those_who_want_no_motion(open_page: Callable[..., Page], server: str) -> None:
    page = open_page(server, reduced_motion="reduce")
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((one) => {
            const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(one);
            return parseFloat(transitionDuration) || animationName !== "none" || scrollBehavior === "smooth";
        }).length"""
    )
    assert moving == 0


def test_a_reload_keeps_the_session_and_what_runs(page: Page) -> None:
    from playwright.sync_api import expect

    fill(page, prompt="a red circle", num_inference_steps=2, seed=5)
    make(page)
    fill(page, prompt="a green triangle", num_inference_steps=40, seed=6)
    page.click("#make")
    expect(page.locator("#step")).to_contain_text("of 40", timeout=LONG)
    page.reload()
    wait_for_images(page, 2)
    assert page.inner_text("#parameters").startswith("a green triangle")
    page.locator("#gallery button").nth(1).click()
    page.click("#use-settings")
    assert page.input_value("#prompt") == "a red circle"
    assert page.input_value("#seed") == "5"


def test_another_tab_shows_nothing_of_this_one(
    page: Page, open_page: Callable[..., Page], server: str
) -> None:
    fill(page, prompt="a red circle", num_inference_steps=2)
    make(page)
    other = open_page(server)
    wait_for_models(other)
    other.wait_for_load_state("networkidle")
    assert other.locator("#gallery li").count() == 0


def test_texts_of_files_and_servers_are_never_markup(page: Page, tmp_path: Path) -> None:
    wait_for_models(page)
    markup = "<img src=x onerror=alert(1)>"
    text = f"{markup}\nSteps: 2, Sampler: {markup}, CFG scale: 3, Seed: 1, Size: 64x64, Version: sdrt 0.1.0"
    page.set_input_files("#settings-file", with_text(tmp_path / f"{markup}.png".replace("/", ""), text))
    page.wait_for_selector("#settings-note:not(:empty)")
    assert page.input_value("#prompt") == markup
    make(page)
    assert page.locator("[src=x]").count() == 0
    assert page.inner_text("#parameters").startswith(markup)
