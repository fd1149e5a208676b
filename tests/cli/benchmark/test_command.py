"""`sdrt benchmark`: what it prints, writes and refuses, on the tiny model."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sdrt import OutOfMemoryError
from sdrt.cli import main

pytestmark = pytest.mark.usefixtures("folder")

# One warm-up and one measured generation, of few steps.
FAST = ("--steps", "3", "--time-limit", "0", "--threads", "1", "--provider", "cpu", "--scheduler", "euler")


def benchmark(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["benchmark", *arguments], prog_name="sdrt")


@pytest.fixture(scope="module")
def measured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run with a profile, and the file of its record."""
    path = tmp_path_factory.mktemp("benchmark") / "a.json"
    return benchmark("-m", str(tiny_model), *FAST, "--profile", "--json", str(path)), path


@pytest.fixture
def record(measured: tuple[Result, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(measured[1].read_text())
    return found


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


def _taken(*names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take these names while sdrt measures."""
    from sdrt.cli.benchmark.runner import Job

    measure = Job.measure

    def taking(job: Job) -> None:
        for name in names:
            Path(name).mkdir()
        measure(job)

    monkeypatch.setattr(Job, "measure", taking)


@pytest.mark.parametrize(
    ("taken", "written"),
    [
        (["a.json"], ["p.png", "t.png"]),
        (["p.png"], ["a.json", "t.png"]),
        (["a.json", "p.png"], ["t.png"]),
        (["t.png"], ["a.json", "p.png"]),
    ],
)
def test_a_file_that_cannot_be_written_loses_no_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, taken: list[str], written: list[str]
) -> None:
    pytest.importorskip("matplotlib")
    _taken(*taken, monkeypatch=monkeypatch)
    files = ("--json", "a.json", "--plot", "p.png", "--timeline", "t.png", "--force")
    result = benchmark("-m", str(tiny_model), "--size", "64", *FAST, *files)
    assert result.exit_code == 1
    assert "64x64 b1" in result.stdout
    assert [name for name in ("a.json", "p.png", "t.png") if Path(name).is_file()] == written
    assert all(f"{name} cannot be written" in result.stderr for name in taken)


def test_the_error_that_ended_it_is_told_though_no_file_can_be_written(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdrt.cli.benchmark.runner import Job

    _taken("a.json", monkeypatch=monkeypatch)
    one = Job._one

    def second_fails(job: Job, model: Any, configuration: Any, tell: Any) -> Any:
        if configuration.batch == 2:
            raise OutOfMemoryError("unet ran out of memory", component="unet")
        return one(job, model, configuration, tell)

    monkeypatch.setattr(Job, "_one", second_fails)
    result = benchmark("-m", str(tiny_model), "--size", "64", *FAST, "-b", "1,2", "--json", "a.json", "-f")
    assert result.exit_code == 5
    assert result.stderr.strip().endswith("error: unet ran out of memory")
    assert "warning: a.json cannot be written" in result.stderr


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


def test_auto_is_measured_once(tiny_model: Path) -> None:
    result = benchmark("-m", str(tiny_model), *FAST[:-4], "--provider", "auto,cpu", "--json", "a.json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(Path("a.json").read_text())["measurements"]) == 1


def test_a_disk_that_is_full_takes_no_tables(
    measured: tuple[Result, Path], record: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    path = str(measured[1])
    result = benchmark("--compare", path, path, "--json", str(folder / "a.json"))
    assert result.exit_code == 0
    shown = result.stdout

    def lost(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdrt.cli.benchmark.runner.Files.write", lost)
        result = benchmark("--compare", path, path, "--json", str(folder / "b.json"))
    assert result.exit_code != 0
    assert result.stdout == shown


def test_what_a_file_says_stays_in_its_line(measured: tuple[Result, Path], record: dict[str, Any]) -> None:
    record["model"]["name"] = "\x1b[31mx\n\ny"
    Path("odd.json").write_text(json.dumps(record))
    result = benchmark("--compare", str(measured[1]), "odd.json")
    assert result.exit_code == 0
    assert r"-> \x1b[31mx\n\ny" in result.stdout


def test_what_fails_does_not_end_the_others(
    tiny_model: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(model: object, configuration: Any, *_: object) -> dict[str, Any]:
        if configuration.width == 128:
            raise OutOfMemoryError("unet ran out of memory")
        one = record["measurements"][0]
        return {key: one[key] for key in one if key not in ("settings", "statistics", "warnings", "model")}

    monkeypatch.setattr("sdrt.benchmark.runner.measured", measured)
    monkeypatch.setattr("sdrt.benchmark.runner.first_pictures", lambda *_: [1.0])
    result = benchmark("-m", str(tiny_model), *FAST, "--size", "64,128,72", "--json", "a.json")
    assert result.exit_code == 5
    assert "64x64" in result.stdout
    assert "72x72" in result.stdout
    assert "128x128 b1: failed: unet ran out of memory" in result.stderr
    found = json.loads(Path("a.json").read_text())
    assert [one["settings"]["width"] for one in found["measurements"]] == [64, 72]
    assert [one["settings"]["width"] for one in found["failed"]] == [128]
    assert found["complete"] is False
    compared = benchmark("--compare", "a.json", "a.json")
    assert (
        "a.json is from a run in which 1 configurations failed: it has only what was measured"
        in compared.stderr
    )


def test_nobody_who_reads_the_tables_leaves_the_record(
    tiny_model: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = record["measurements"][0]
    kept = {key: one[key] for key in one if key not in ("settings", "statistics", "warnings", "model")}
    monkeypatch.setattr("sdrt.benchmark.runner.measured", lambda *_: dict(kept))
    monkeypatch.setattr("sdrt.benchmark.runner.first_pictures", lambda *_: [1.0])

    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("sdrt.cli.benchmark.runner.report", broken)
    result = benchmark("-m", str(tiny_model), *FAST, "--json", "a.json")
    assert result.exit_code == 1
    assert len(json.loads(Path("a.json").read_text())["measurements"]) == 1


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


def test_low_vram_is_measured_and_said(tiny_model: Path) -> None:
    result = benchmark("-m", str(tiny_model), *FAST, "--low-vram", "--json", "a.json")
    assert result.exit_code == 0, result.output
    assert "low VRAM" in result.stdout.split("\n\n")[0]
    settings = json.loads(Path("a.json").read_text())["measurements"][0]["settings"]
    assert (settings["low_vram"], settings["provider_options"]) == (True, {})


def test_a_process_that_fails_is_told_as_its_error(model_copy: Path) -> None:
    graph = model_copy / "vae_decoder" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:2000])
    result = benchmark("-m", str(model_copy), *FAST, "--json", "a.json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "error: vae_decoder" in result.stderr
    assert not Path("a.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_keeps_what_was_measured(model: str, folder: Path) -> None:
    command = [sys.executable, "-m", "sdrt", "benchmark", "-m", model, *FAST]
    command += ["--batch", "1,2", "--json", "a.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("2 of 2"):
            assert line, "it ended"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip().endswith("error: interrupted")
    assert "64x64 b1" in out
    found = json.loads((folder / "a.json").read_text())
    assert (found["complete"], len(found["measurements"])) == (False, 1)
    assert [path.name for path in folder.iterdir()] == ["a.json"]


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
