"""`sdrt benchmark`: what it prints, compares and refuses, on the tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.benchmark.tiny_benchmark import FAST, benchmark

pytestmark = pytest.mark.usefixtures("folder")


def test_tables_go_to_stdout_and_fit_a_terminal(measured: tuple[Result, Path]) -> None:
    result, path = measured
    assert result.exit_code == 0, result.output
    for words in (
        "step, ms",
        "95% interval",
        "first image",
        "U-Net",
        "peak memory",
        "n < 10",
        "profile of",
    ):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "first generation" in result.stderr
    assert f"wrote {path}" in result.stderr


def test_long_names_have_a_legend(record: dict[str, Any]) -> None:
    from sdrt.cli.benchmark.report import report

    first = record["measurements"][0]
    wide = {"width": 1024, "height": 1024, "scheduler": "dpmpp_2m_sde", "provider": "openvino", "threads": 16}
    record["measurements"] = [first, first | {"settings": first["settings"] | wide}]
    text = report(record)
    assert "#2: 1024x1024 b1 dpmpp_2m_sde openvino threads 16" in text
    assert "\n#2  " in text
    assert max(map(len, text.splitlines())) <= 80


def test_models_of_providers_are_told_apart(record: dict[str, Any]) -> None:
    from sdrt.cli.benchmark.report import report

    first = record["measurements"][0]
    other = {
        "model": first["model"] | {"dtype": "float16", "target": "cuda"},
        "settings": first["settings"] | {"provider": "cuda"},
    }
    record["measurements"] = [first, first | other]
    name = first["model"]["name"]
    assert f"cpu: {name}, float32 for cpu; cuda: {name}, float16 for cuda, on " in report(record).replace(
        "\n", " "
    )


def test_the_record_has_every_sample(record: dict[str, Any]) -> None:
    (one,) = record["measurements"]
    assert record["complete"] is True
    assert one["settings"]["scheduler"] == "euler"
    assert [len(generation["steps"]) for generation in one["generations"]] == [3]
    # Half of the processes and one more, as the time is over.
    assert len(one["first_pictures"]) == 3
    assert min(one["first_pictures"]) > one["first_generation"]["steps"][0]["wall"] > 0
    assert (one["warmup"]["ended_by"], one["ended_by"]) in [
        ("time limit", "time limit"),
        ("agreement", "time limit"),
    ]
    assert one["statistics"]["step"]["count"] == 2
    assert one["clocks"].keys() == {"before", "during", "after"}
    assert len(one["clocks"]["during"]) == len(one["generations"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what Linux tells")
def test_memory_is_that_of_the_process_that_generates(record: dict[str, Any]) -> None:
    memory = record["measurements"][0]["memory"]
    assert 10e6 < memory["own_bytes"] < memory["resident_bytes"] < 2e9
    assert memory["device_bytes"] is None


def test_a_profile_is_in_the_record(record: dict[str, Any]) -> None:
    profile = record["measurements"][0]["profile"]
    assert profile["steps"] >= 3
    assert {"Conv", "MatMul"} <= {row["operator"] for row in profile["components"]["unet"]["operators"]}


def test_a_record_compared_with_itself_is_one(measured: tuple[Result, Path]) -> None:
    path = str(measured[1])
    result = benchmark("--compare", path, path, "--json", "c.json")
    assert result.exit_code == 0, result.output
    assert "step          1.000" in result.stdout
    assert "different" not in result.stdout
    (told,) = json.loads(Path("c.json").read_text())["comparisons"]
    assert told["pairs"][0]["ratios"]["step"]["before"] == told["pairs"][0]["ratios"]["step"]["after"] > 0


def test_three_records_are_two_comparisons(measured: tuple[Result, Path], record: dict[str, Any]) -> None:
    for batch in (1, 2):
        record["measurements"][0]["settings"]["batch"] = batch
        record["complete"] = batch == 1
        Path(f"b{batch}.json").write_text(json.dumps(record))
    result = benchmark("--compare", str(measured[1]), "b1.json", "b2.json")
    assert result.stdout.count("below 1 is faster") == 2
    assert "no configuration is in both records" in result.stdout
    assert "only in b2.json:\n  64x64 b2 euler" in result.stdout
    assert "b2.json is from an interrupted run" in result.stderr


def test_a_comparison_may_overwrite_a_record_that_it_compares(measured: tuple[Result, Path]) -> None:
    """It was read before."""
    text = measured[1].read_text()
    for name in ("a.json", "b.json"):
        Path(name).write_text(text)
    refused = benchmark("--compare", "a.json", "b.json", "--json", "a.json")
    assert (refused.exit_code, Path("a.json").read_text()) == (2, text)
    Path("broken.json").write_text("{")
    assert benchmark("--compare", "a.json", "broken.json", "--json", "a.json", "--force").exit_code != 0
    assert Path("a.json").read_text() == text
    done = benchmark("--compare", "a.json", "b.json", "--json", "a.json", "--force")
    assert done.exit_code == 0, done.output
    (told,) = json.loads(Path("a.json").read_text())["comparisons"]
    assert (told["first"], told["second"], len(told["pairs"])) == ("a.json", "b.json", 1)


@pytest.mark.parametrize("plot", ["latency", "timeline", "flame"])
def test_images_are_drawn(plot: str, record: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image, ImageStat

    from sdrt.benchmark.plots import draw

    Path("plot.png").write_bytes(draw(plot, record))
    with Image.open("plot.png") as image:
        assert (image.format, image.width) == ("PNG", 1296)
        # More than a frame on white.
        assert max(ImageStat.Stat(image.convert("RGB")).stddev) > 20


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--size", "0"), 2, "height is 0: expected a whole number"),
        (("--size", "64,64x"), 2, "'64,64x' is not a list of sizes such as 512,768x512"),
        (("--size", "64", "-W", "64"), 2, "expected --size, or --width and --height, got both"),
        (("--batch", "1,two"), 2, "'1,two' is not a list of numbers"),
        (("--scheduler", "euler,none"), 2, "unknown scheduler 'none'"),
        (("--scheduler", "euler,"), 2, "'euler,' has an empty name"),
        (("--provider", "gpu"), 4, "unknown provider 'gpu'"),
        (("--provider", "cpu", "--provider-option", "a=b"), 2, "cpu has no option 'a': it takes none"),
        (("--provider-option", "a"), 2, "expected KEY=VALUE, got 'a'"),
        (
            ("--json", "none/a.json"),
            2,
            "--json none/a.json cannot be written, because the folder none does not exist: make it first",
        ),
        (("--json", "there.json"), 2, "--json there.json exists already"),
        (("--json", "a.txt"), 2, "--json a.txt has the extension '.txt': expected .json"),
        (("--precision", "2"), 2, "precision is 2.0: expected a share"),
        (("there.json",), 2, "unexpected 'there.json': only --compare takes files"),
        (("--compare", "there.json"), 2, "--compare: expected two or more files"),
        (("--compare", "there.json", "there.json"), 2, "there.json is not a benchmark record"),
        (
            ("--compare", "a.json", "b.json", "--steps", "3"),
            2,
            "measures nothing: leave out --steps",
        ),
        (("--low-vram", "--profile"), 2, "--profile and --low-vram do not work together"),
        (("--random-weights", "tiny", "-m", "shapes"), 2, "expected --random-weights, or --model"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    arguments: tuple[str, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    Path("there.json").write_text("{}")
    result = benchmark(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["there.json"]


@pytest.mark.full
def test_auto_is_measured_once(tiny_model: Path) -> None:
    result = benchmark("-m", str(tiny_model), *FAST[:-4], "--provider", "auto,cpu", "--json", "a.json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(Path("a.json").read_text())["measurements"]) == 1


def test_what_a_file_says_stays_in_its_line(measured: tuple[Result, Path], record: dict[str, Any]) -> None:
    record["model"]["name"] = "\x1b[31mx\n\ny"
    Path("odd.json").write_text(json.dumps(record))
    result = benchmark("--compare", str(measured[1]), "odd.json")
    assert result.exit_code == 0
    assert r"-> \x1b[31mx\n\ny" in result.stdout


@pytest.mark.parametrize("option", ["--plot", "--timeline", "--flame"])
def test_an_image_without_matplotlib_is_refused_first(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = benchmark(option, "a.png")
    assert result.exit_code == 2
    assert f"{option} draws with matplotlib, which cannot be imported" in result.stderr
    assert "[benchmark]'" in result.stderr


def test_a_provider_that_is_not_there_names_the_remedy() -> None:
    from sdrt.onnx.engine import available_providers

    if "cuda" in available_providers():
        pytest.skip("this build has CUDA")
    result = benchmark("--provider", "cpu,cuda")
    assert result.exit_code == 4
    assert "[gpu]" in result.stderr


@pytest.mark.full
def test_low_vram_is_measured_and_said(tiny_model: Path) -> None:
    result = benchmark("-m", str(tiny_model), *FAST, "--low-vram", "--json", "a.json")
    assert result.exit_code == 0, result.output
    assert "low VRAM" in result.stdout.split("\n\n")[0]
    settings = json.loads(Path("a.json").read_text())["measurements"][0]["settings"]
    assert (settings["low_vram"], settings["provider_options"]) == (True, {})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-W", "4096"), "width is 4096: expected at most 2048, or allow more with --max-size 4096"),
        (
            ("--size", "64x8192", "--max-size", "4096"),
            "height is 8192: expected at most 4096, or allow more with --max-size 8192",
        ),
        (("-H", "100000000000"), "height is 100000000000: expected a whole number from 1 to 2147483648"),
    ],
)
def test_a_large_size_is_refused_with_what_this_command_has(
    tiny_model: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = benchmark("-m", str(tiny_model), *arguments)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr
    assert "tile" not in result.stderr
