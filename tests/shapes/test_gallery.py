"""The commands that make the images and figures of the documentation, and what of them is kept there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sdrt.schedulers import SAMPLERS
from sdrt_models.shapes import gallery, task_images
from sdrt_models.shapes.gallery_page import RESULTS, families_of

ROOT = Path(__file__).resolve().parents[2]
IMAGE = re.compile(r"!\[.+\]\((.+)\)")
MOST_BYTES = 600_000
STEPS = (2, 3, 4)


def run(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(gallery.main, ["--prompts", "1", *arguments, str(folder)])
    assert result.exit_code == 0, result.output
    return (folder / "docs" / "gallery.md").read_text(encoding="utf-8")


def rows(page: str) -> dict[str, list[str]]:
    """The table's cells, by scheduler."""
    table = [re.split(r" *\| *", line.strip("| ")) for line in page.splitlines() if line.startswith("|")]
    return {name: cells for name, *cells in table[2:]}


def results(folder: Path) -> list[tuple[str, int, int]]:
    report = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    return [(one["scheduler"], one["steps"], one["total"]) for one in report["results"]]


@pytest.mark.full
def test_a_page_and_one_scheduler_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "STEPS", STEPS)
    page = run(tmp_path, "--scheduler", "heun", "--scheduler", "edm_euler")
    assert list(rows(page)) == ["Heun"]
    assert "| 2 steps | 3 steps | 4 steps |" in page
    assert rows(page)["Heun"][-1] == "3, 5, 7"
    assert "- EDM Euler: scheduler 'edm_euler' is for models trained as in EDM" in page
    assert IMAGE.findall(page) == [
        "images/schedulers-accuracy.png",
        "images/schedulers-single-step.webp",
    ]
    assert results(tmp_path) == [("heun", steps, 1) for steps in STEPS]

    more = run(tmp_path, "--scheduler", "lms")
    assert list(rows(more)) == ["Heun", "LMS"]
    assert rows(more)["Heun"] == rows(page)["Heun"]
    assert "images/schedulers-multistep.webp" in IMAGE.findall(more)
    assert len(results(tmp_path)) == 2 * len(STEPS)
    for name in IMAGE.findall(more):
        with Image.open(tmp_path / "docs" / name) as image:
            assert min(image.size) > 150
            assert len(image.convert("RGB").getcolors(2**24) or []) > 100


def test_nothing_to_show_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(gallery.main, ["--scheduler", "edm_euler", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith("error: scheduler 'edm_euler' is for models trained as in EDM")
    assert not list(tmp_path.rglob("*.md"))


def test_every_scheduler_has_one_place() -> None:
    shown = [row.name for _, members in families_of(SAMPLERS.values()) for row in members]
    assert sorted(shown) == sorted(SAMPLERS)


def test_an_image_of_a_task(tmp_path: Path) -> None:
    result = CliRunner().invoke(task_images.main, ["--task", "inpainting", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert f"task-inpainting.webp: {task_images.TASKS['inpainting'].about}" in result.output
    with Image.open(tmp_path / "docs" / "images" / "task-inpainting.webp") as sheet:
        levels = np.asarray(sheet.convert("RGB"), dtype=np.float32)
    before, _, after = (levels[8:136, left : left + 128] for left in (8, 144, 280))
    changed = np.abs(after - before).max(-1) > 64
    # The mask begins at the 80th column; the image's compression is not that strong.
    assert changed[:, 80:].mean() > 0.1
    assert not changed[:, :72].any()


@pytest.mark.parametrize("page", ["gallery.md", "features.md"])
def test_images_of_the_documentation_are_there_and_small(page: str) -> None:
    names = IMAGE.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    for name in names:
        assert (ROOT / "docs" / name).stat().st_size < MOST_BYTES, name


def test_every_task_has_its_image() -> None:
    kept = {path.stem for path in (ROOT / "docs" / "images").glob("task-*.webp")}
    assert kept == {f"task-{name}" for name in task_images.TASKS}
