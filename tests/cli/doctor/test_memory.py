"""`sdrt doctor --size`: how much memory images take, and what fits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sdrt.benchmark import memory, runner
from sdrt.benchmark.capacity import Estimate
from sdrt.cli import main

GB = 2**30
MEGAPIXEL = 1024 * 1024


def findings(*arguments: str) -> tuple[list[dict[str, Any]], int]:
    result = CliRunner().invoke(main, ["doctor", "--json", *arguments])
    told = json.loads(result.stdout)
    assert told["exit_code"] == result.exit_code
    return [one for one in told["findings"] if one["name"] == "memory"], result.exit_code


def linear(available: float | None, *, load: float = 1, per_megapixel: float = 4) -> Estimate:
    """A gigabyte, and four for each megapixel."""
    return Estimate(
        load=round(load * GB),
        points=[(MEGAPIXEL // share, round((load + per_megapixel / share) * GB)) for share in (16, 4)],
        available=None if available is None else round(available * GB),
    )


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What is measured: as usual, and with low_vram."""

    def give(usual: Estimate | None, thrifty: Estimate | None = None) -> None:
        monkeypatch.setattr(
            runner, "estimated", lambda model, asked, tell: thrifty if asked.low_vram else usual
        )

    return give


@pytest.mark.full
@pytest.mark.skipif(memory.own_bytes("self") is None, reason="this system does not tell what a process takes")
def test_sizes_are_measured_on_small_images(tiny_model: Path) -> None:
    """The tiny model's weights are 2 MB; what is in memory is mostly Python, and grows with the image."""
    told, code = findings("-m", str(tiny_model), "--provider", "cpu", "--size", "64,512x1024")
    assert (code, [one["status"] for one in told]) == (0, ["ok", "ok"])
    assert told[0]["detail"].startswith("64x64, batch 1, on cpu: about ")
    assert told[1]["detail"].startswith("512x1024, batch 1, on cpu: about ")
    small, large = (int(one["detail"].split("about ")[1].split(" MB, and")[0]) for one in told)
    assert 20 < small < large < 4000


def test_what_fits_is_said(tiny_model: Path, estimates: Callable[..., None]) -> None:
    estimates(linear(8))
    told, code = findings("-m", str(tiny_model), "--size", "1024")
    assert (told[0]["status"], code) == ("ok", 0)
    assert told[0]["detail"].endswith("about 5.0 GB, and 8.0 GB are free")


def test_what_does_not_fit_is_a_warning_with_what_does(
    tiny_model: Path, estimates: Callable[..., None]
) -> None:
    # 3.9 GB with a margin of 30 % are 3: half a megapixel; with low_vram one and a quarter.
    estimates(linear(3.9), linear(3.9, load=0.5, per_megapixel=2))
    told, code = findings("-m", str(tiny_model), "--size", "2048x1024", "--batch", "2")
    assert (told[0]["status"], code) == ("warning", 0)
    assert "2048x1024, batch 2" in told[0]["detail"]
    assert told[0]["remedy"] == (
        "1024x512 fits; --low-vram takes about 4.5 GB, and 1600x768 fits with it; smaller batches take less"
    )


def test_not_even_the_weights_fit(tiny_model: Path, estimates: Callable[..., None]) -> None:
    estimates(linear(1), linear(1, load=0.5, per_megapixel=0.1))
    told, _ = findings("-m", str(tiny_model), "--size", "512")
    assert told[0]["remedy"] == "no size fits; --low-vram takes about 538 MB"


@pytest.mark.parametrize(
    ("usual", "status", "words"),
    [(None, "note", "this system does not report"), (linear(None), "ok", "about 2.0 GB")],
)
def test_what_nothing_tells_is_not_made_up(
    tiny_model: Path, estimates: Callable[..., None], usual: Estimate | None, status: str, words: str
) -> None:
    estimates(usual)
    told, code = findings("-m", str(tiny_model), "--size", "512")
    assert (told[0]["status"], code) == (status, 0)
    assert words in told[0]["detail"]


def test_a_size_that_the_model_cannot_have_is_an_error(tiny_model: Path) -> None:
    told, code = findings("-m", str(tiny_model), "--size", "0")
    assert (told[0]["status"], code) == ("error", 2)


def test_memory_of_a_container_is_the_least_of_both(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000 kB\nMemAvailable:  6000 kB\n")
    assert memory.available_bytes(tmp_path) == 6000 * 1024
    groups = tmp_path / "sys/fs/cgroup"
    groups.mkdir(parents=True)
    for name, content in {
        "memory.current": "3000000",
        "memory.stat": "anon 5\ninactive_file 1000000",
    }.items():
        (groups / name).write_text(content)
    (groups / "memory.max").write_text("max\n")
    assert memory.available_bytes(tmp_path) == 6000 * 1024
    (groups / "memory.max").write_text("4000000\n")
    assert memory.available_bytes(tmp_path) == 2_000_000
    assert memory.available_bytes(tmp_path / "none") is None


@pytest.mark.full
@pytest.mark.skipif(memory.own_bytes("self") is None, reason="this system does not tell what a process takes")
@pytest.mark.parametrize("size", ["8", "20000"])
def test_the_smallest_and_the_largest_are_measured_on_what_the_model_can_make(
    tiny_model: Path, size: str
) -> None:
    """Never on more pixels than 512x512, whatever is asked about."""
    result = CliRunner().invoke(main, ["doctor", "-m", str(tiny_model), "--provider", "cpu", "--size", size])
    assert result.exit_code == 0, result.output
    assert f"memory: {size}x{size}, batch 1, on cpu: about " in result.stdout
    made = re.findall(r"measuring memory at (\d+)x(\d+)", result.stderr)
    assert len(set(made)) >= 2
    assert all(int(width) * int(height) <= 512 * 512 for width, height in made)


def test_a_batch_is_of_a_size(tiny_model: Path) -> None:
    for arguments in (["--batch", "2"], ["--size", "64", "--batch", "0"]):
        result = CliRunner().invoke(main, ["doctor", "-m", str(tiny_model), *arguments])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--batch" in result.stderr
