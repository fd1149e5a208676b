"""What tests do on the page: make images, and look at their pixels."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdrt.images.metadata import save_options

if TYPE_CHECKING:
    from playwright.sync_api import Page

LONG = 120_000  # milliseconds that anything may take, on a busy machine too
Pixels = NDArray[np.int16]


def fill(page: Page, **values: str | int) -> None:
    """Type values into the fields of these names."""
    for name, value in values.items():
        page.fill(f"#{name}", str(value))


def make(page: Page, images: int = 1) -> None:
    """Press the button, and wait for the images."""
    before = page.locator("#gallery li").count()
    page.click("#make")
    wait_for_images(page, before + images)


def wait_for_images(page: Page, count: int) -> None:
    """Wait until the gallery has so many images."""
    from playwright.sync_api import expect

    problem = page.locator(".field-error, #form-error:not(:empty)")
    made = page.locator(f"#gallery li:nth-child({count})")
    expect(made.or_(problem).first).to_be_visible(timeout=LONG)
    assert problem.all_inner_texts() == [], problem.all_inner_texts()
    expect(page.locator("#cancel")).to_be_disabled(timeout=LONG)


def downloaded(page: Page) -> Image.Image:
    """The file of the image that is shown."""
    with page.expect_download() as started:
        page.click("#download")
    path = started.value.path()
    with Image.open(path) as image:
        image.load()
        return image


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.int16)


def red(image: Pixels) -> NDArray[np.bool_]:
    """Where an image is as red as the embedded model's red."""
    r, g, b = image[..., 0], image[..., 1], image[..., 2]
    return (r > 150) & (g < 100) & (b < 100)


def canvas(page: Page) -> NDArray[np.uint8]:
    """How opaque the paint of the mask is, at each pixel."""
    address = page.evaluate("document.getElementById('mask').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))[..., 3]


def blue_square(path: Path, side: int = 128) -> Path:
    """An image of a blue square on white."""
    image = Image.new("RGB", (side, side), "white")
    image.paste((40, 80, 220), (side // 8, side // 8, side // 2, side // 2))
    image.save(path)
    return path


def with_text(path: Path, text: str, side: int = 128) -> Path:
    """An image whose metadata say how it was made."""
    Image.new("RGB", (side, side), "gray").save(path, **save_options("PNG", text))
    return path


def drop(page: Page, path: Path, zone: str) -> None:
    """Drag a file over the page, and let it go on a zone: settings or image."""
    data: Any = page.evaluate_handle(
        """([name, text]) => {
            const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: "image/png" }));
            return data;
        }""",
        [path.name, base64.b64encode(path.read_bytes()).decode()],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    place = f"[data-drop={zone}]"
    page.wait_for_selector(place)
    page.dispatch_event(place, "dragover", {"dataTransfer": data})
    page.dispatch_event(place, "drop", {"dataTransfer": data})
    data.dispose()


def wait_for_models(page: Page) -> None:
    """Wait until the form offers what the server has."""
    page.wait_for_selector("#model option", state="attached")
