"""The contact sheet: where images land, what stands under them, how large it may get."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sdrt.errors import RequestError
from sdrt.images.contact_sheet import MAX_IMAGES, MAX_SIDE, ContactSheet

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def sheet_of(count: int, *, side: int = 32, label: str = "seed", columns: int | None = None) -> Image.Image:
    sheet = ContactSheet(count=count, width=side, height=side, columns=columns)
    for index in range(count):
        sheet.add(Image.new("RGB", (side, side), COLOURS[index % len(COLOURS)]), label)
    return sheet.render()


def centre_of(image: Image.Image, colour: tuple[int, int, int]) -> tuple[float, float]:
    rows, columns = np.nonzero((np.asarray(image) == colour).all(-1))
    return float(columns.mean()), float(rows.mean())


def test_images_lie_row_by_row() -> None:
    sheet = sheet_of(5, columns=3)
    x, y = zip(*(centre_of(sheet, colour) for colour in COLOURS), strict=True)
    assert x[0] < x[1] < x[2]
    assert (x[0], x[1]) == (x[3], x[4])
    assert y[0] == y[1] == y[2] < y[3] == y[4]


def test_every_image_is_there_whole_and_unaltered() -> None:
    pixels = np.asarray(sheet_of(5))
    for colour in COLOURS:
        assert (pixels == colour).all(-1).sum() == 32 * 32


def test_without_columns_it_is_about_square() -> None:
    sheet = sheet_of(9, side=64)
    assert 0.6 < sheet.width / sheet.height < 1.7


def test_the_label_is_written_below_and_stays_within_its_cell() -> None:
    plain = sheet_of(1, side=96, label="")
    labelled = sheet_of(
        1, side=96, label="a large red circle left of a small blue star on a white background " * 3
    )
    assert labelled.width == plain.width
    below = np.asarray(labelled)[8 + 96 :]
    assert (below < 100).any()
    assert (below[:, -8:] > 200).all()


def test_a_word_longer_than_the_cell_is_cut() -> None:
    assert sheet_of(1, side=48, label="x" * 500).width == sheet_of(1, side=48, label="").width


@pytest.mark.full
@pytest.mark.parametrize(
    ("count", "columns", "size"),
    [
        (1, None, (10_000, 5_000)),
        (6, None, (4000, 2000)),
        (1400, 700, (128, 64)),  # a row per prompt: 700 in it would be 2 pixels wide
        (400, 2, (128, 64)),
        (MAX_IMAGES, None, (128, 64)),
    ],
)
def test_it_keeps_to_its_size_whatever_is_asked(
    count: int, columns: int | None, size: tuple[int, int]
) -> None:
    sheet = ContactSheet(count=count, width=size[0], height=size[1], columns=columns)
    red = Image.new("RGB", size, (255, 0, 0))
    for _ in range(count):
        sheet.add(red, "a prompt of some length, with a seed: 12345678")
    rendered = sheet.render()
    assert max(rendered.size) <= MAX_SIDE
    reds = (np.asarray(rendered) == (255, 0, 0)).all(-1)
    width, height = _first_run(reds[8, 8:]), _first_run(reds[8:, 8])
    assert width >= 16
    assert abs(width - 2 * height) <= 2


def _first_run(row: np.ndarray) -> int:
    return int(np.argmin(row)) or len(row)


@pytest.mark.parametrize(
    "size", [{"count": MAX_IMAGES + 1}, {"count": 0}, {"count": -1}, {"width": 0}, {"columns": 0}]
)
def test_what_it_cannot_show_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="expected 1"):
        ContactSheet(**{"count": 4, "width": 64, "height": 64, **size})


def test_a_full_sheet_takes_no_more() -> None:
    sheet = ContactSheet(count=1, width=32, height=32)
    sheet.add(Image.new("RGB", (32, 32)), "seed 1")
    with pytest.raises(RequestError, match="is full"):
        sheet.add(Image.new("RGB", (32, 32)), "seed 2")


def test_images_of_odd_proportions() -> None:
    sheet = ContactSheet(count=MAX_IMAGES, width=2048, height=64)
    sheet.add(Image.new("RGB", (2048, 64), (255, 0, 0)), "seed 1")
    assert (np.asarray(sheet.render()) == (255, 0, 0)).all(-1).any()


def test_a_label_of_twenty_thousand_letters_takes_no_time() -> None:
    assert sheet_of(40, side=64, label="東" * 20_000).width < 1000


def test_no_image_yet() -> None:
    assert ContactSheet(count=4, width=32, height=32).render().width > 0


def test_a_sheet_of_fewer_images_than_planned_ends_after_them() -> None:
    sheet = ContactSheet(count=100, width=32, height=32)
    sheet.add(Image.new("RGB", (32, 32), (255, 0, 0)), "seed 1")
    assert sheet.render().height < 100
