"""`sdrt generate` on a real tiny model: images, prompts, inputs and errors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from sdrt.cli import main
from sdrt.images.metadata import Parameters, read_parameters
from tests.cli.commands import generate, pixels, run

pytestmark = pytest.mark.usefixtures("folder")


FORBIDDEN = {"torch", "diffusers", "transformers", "optimum", "onnx", "sdrt_export"}


def test_progress_of_a_sampler_that_chooses_its_steps_promises_nothing(model: str) -> None:
    result = generate(model, "-o", "a.png", "--scheduler", "DPM adaptive")
    assert result.exit_code == 0
    assert ": step 1, " in result.stderr
    assert " left" not in result.stderr
    other = generate(model, "-o", "b.png")
    assert ": step 1/3, " in other.stderr
    assert " left" in other.stderr


def test_image_i_has_seed_plus_i_whatever_the_batch_size(model: str) -> None:
    generate(model, "-s", "7", "--count", "3", "-b", "2", "-o", "b-{seed}.png")
    generate(model, "-s", "7", "--count", "3", "-o", "c.png")
    generate(model, "-s", "9", "-o", "d.png")
    for seed, index in ((7, 0), (8, 1), (9, 2)):
        assert pixels(f"b-{seed}.png") == pixels(f"c-{index}.png")
    assert pixels("b-9.png") == pixels("d.png")


def test_a_batch_size_alone_makes_one_batch(model: str) -> None:
    assert generate(model, "-s", "1", "-b", "2").stdout == "sdrt-1.png\nsdrt-2.png\n"


def test_several_prompts(model: str) -> None:
    result = run("generate", "one", "two", "-m", model, "--steps", "1", "-s", "5", "-b", "2", "--count", "1")
    assert result.stdout == "sdrt-5.png\nsdrt-6.png\n"
    prompts = [Parameters.parse(read_parameters(Path(f"sdrt-{seed}.png"))[1] or "").prompt for seed in (5, 6)]
    assert prompts == ["one", "two"]


def test_seeds_of_64_bits_and_negative_ones(model: str) -> None:
    generate(model, "-s", str(2**32 + 7), "-o", "long.png")
    generate(model, "-s", "7", "-o", "short.png")
    assert pixels("long.png") == pixels("short.png")
    report = json.loads(generate(model, "-s", "-2", "--count", "3", "-o", "{index}.png", "--json").stdout)
    assert report["seeds"] == [2**64 - 2, 2**64 - 1, 0]
    again = run("generate", "--from", "1.png", "-m", model, "-o", "again.png")
    assert (again.exit_code, pixels("again.png")) == (0, pixels("1.png"))


@pytest.mark.parametrize("arguments", [[], ["-s", "-1"]])
def test_a_random_seed_is_printed_and_makes_the_image_again(model: str, arguments: list[str]) -> None:
    result = generate(model, "-o", "a.png", *arguments)
    seed = result.stderr.split("seed ")[1].split(";")[0]
    generate(model, "-o", "b.png", "-s", seed)
    assert pixels("a.png") == pixels("b.png")


def test_json_is_alone_on_stdout(model: str) -> None:
    result = generate(
        model, "--json", "-s", "4", "--count", "2", "-W", "32", "-H", "40", "--scheduler", "euler"
    )
    report = json.loads(result.stdout)
    assert report["files"] == ["sdrt-4.png", "sdrt-5.png"]
    assert report["seeds"] == [4, 5]
    assert (report["settings"]["width"], report["settings"]["height"]) == (32, 40)
    assert report["settings"]["scheduler"] == "euler"
    assert len(report["timings"]["unet"]) == 4
    assert report["timings"]["total"] >= report["timings"]["vae_decoder"] > 0


def test_progress_goes_to_stderr_unless_quiet(model: str) -> None:
    assert "step 2/2" in generate(model, "--scheduler", "euler", "-o", "a.png").stderr
    result = generate(model, "-o", "b.png", "-q")
    assert (result.stdout, result.stderr) == ("b.png\n", "")


def test_a_truncated_prompt_is_reported(model: str) -> None:
    result = generate(model, "-o", "a.png", "--prompt-syntax", "plain", prompt="word " * 200)
    assert result.exit_code == 0
    assert "the end is ignored" in result.stderr


def test_a_long_prompt_is_read_to_its_end(model: str) -> None:
    long = generate(model, "-o", "long.png", prompt="word " * 200)
    assert (long.exit_code, "ignored" in long.stderr) == (0, False)
    generate(model, "-o", "other.png", prompt="word " * 199 + "sword")
    with Image.open("long.png") as image, Image.open("other.png") as other:
        assert image.tobytes() != other.tobytes()


def test_an_image_to_begin_from(model: str) -> None:
    Image.new("RGB", (70, 50), "red").save("begin.png")
    made = generate(model, "-i", "begin.png", "--strength", "0.67", "-o", "a.png", "--json")
    assert (made.exit_code, len(json.loads(made.stdout)["timings"]["unet"])) == (0, 2)
    with Image.open("a.png") as image:
        assert image.size == (64, 48)
        assert "Denoising strength: 0.67" in image.info["parameters"]
    missing = generate(model, "-i", "missing.png", "-o", "b.png")
    assert missing.exit_code == 2
    assert "missing.png' cannot be read" in missing.stderr
    assert not Path("b.png").exists()


def test_a_mask(model: str) -> None:
    Image.new("RGB", (64, 64), "red").save("begin.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save("mask.png")
    assert generate(model, "-i", "begin.png", "--mask", "mask.png", "-o", "a.png").exit_code == 0
    with Image.open("a.png") as image:
        # New content fades out over the mask_blur of 4 pixels.
        assert image.crop((36, 0, 64, 64)).getcolors() == [(28 * 64, (255, 0, 0))]
        assert image.getpixel((4, 30)) != (255, 0, 0)
        assert "Denoising strength: 1.0, Mask blur: 4" in image.info["parameters"]


def test_an_image_that_grows(model: str) -> None:
    Image.new("RGB", (64, 48), "red").save("begin.png")
    made = generate(model, "-i", "begin.png", "--outpaint", "144x48@right", "-o", "a.png", "--json")
    assert (made.exit_code, len(json.loads(made.stdout)["timings"]["unet"])) == (0, 6)
    with Image.open("a.png") as image:
        assert image.size == (144, 48)
        assert image.crop((80, 0, 144, 48)).getcolors() == [(64 * 48, (255, 0, 0))]
        assert "Outpaint: 144x48@right" in image.info["parameters"]


def test_prompt_syntax(model: str) -> None:
    generate(model, "-o", "weighed.png", prompt="a (cat:1.4)")
    generate(model, "-o", "plain.png", "--prompt-syntax", "plain", prompt="a (cat:1.4)")
    with Image.open("weighed.png") as weighed, Image.open("plain.png") as plain:
        assert weighed.tobytes() != plain.tobytes()
        assert "Prompt syntax: plain" in plain.info["parameters"]
        assert "Prompt syntax" not in weighed.info["parameters"]
    swapped = generate(model, "-o", "swapped.png", "--prompt-syntax", "compel", prompt="a cat.swap(dog)")
    assert swapped.exit_code == 2
    assert ".swap(…) is not supported" in swapped.stderr


def test_the_command_knows_every_prompt_syntax() -> None:
    from sdrt.text.syntaxes import SYNTAXES

    command = main.get_command(click.Context(main), "generate")
    assert command is not None
    (option,) = [option for option in command.params if option.name == "prompt_syntax"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == tuple(SYNTAXES)


def test_scheduler_config_file(model: str) -> None:
    config = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear"}
    Path("mine.json").write_text(json.dumps(config), encoding="utf-8")
    assert (
        json.loads(generate(model, "--scheduler", "mine.json", "--json").stdout)["settings"]["scheduler"]
        == "euler"
    )
    Path("odd.json").write_text(json.dumps(config | {"timestep_type": "continuous"}), encoding="utf-8")
    result = generate(model, "--scheduler", "odd.json")
    assert result.exit_code == 3
    assert "timestep_type" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--steps", "0"], 2, "--steps is 0"),
        (["--steps", "1001"], 2, "--steps is 1001"),
        (["-W", "60"], 2, "width is 60"),
        (["-H", "0"], 2, "height is 0"),
        (["-H", "-8"], 2, "height is -8"),
        (["-W", "4096"], 2, "--max-size"),
        (["--guidance-scale", "nan"], 2, "--guidance-scale is nan"),
        (
            ["-s", str(2**64)],
            2,
            "seed is 18446744073709551616: expected a whole number from -2**63 to 2**64 - 1",
        ),
        (["--eta", "2"], 2, "eta is 2"),
        (["-n", "x" * 1_000_000], 2, "--negative-prompt has 1000000 characters"),
        (["--scheduler", "heum"], 2, "unknown scheduler 'heum'"),
        (["--scheduler", "missing.json"], 2, "missing.json"),
        (["--spacing", "odd"], 2, "unknown spacing 'odd'"),
        (["--provider", "cpu:7"], 4, "cpu takes no device number"),
        (["--revision", "v1"], 2, "is not a hub id"),
        (["--provider", "abacus"], 4, "unknown provider 'abacus'"),
        (["--provider-option", "precision=bf16"], 2, "cpu has no option 'precision': it takes none"),
        (["--provider", "cuda", "--provider-option", "limit=1"], 2, "it takes gpu_mem_limit"),
        (["--provider", "cuda", "--provider-option", "gpu_mem_limit=x"], 2, "a size above zero, such as 6GB"),
        (["--provider-option", "gpu_mem_limit"], 2, "expected KEY=VALUE, got 'gpu_mem_limit'"),
        (["--provider-option", "a=1", "--provider-option", "a=2"], 2, "a is given twice"),
        (["--threads", "0"], 2, "threads is 0"),
        (["-o", "a.gif"], 2, ".png"),
        (["-o", "none/a.png"], 2, "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    model: str, arguments: list[str], code: int, words: str, folder: Path
) -> None:
    result = generate(model, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in result.stderr
    assert not list(folder.iterdir())


def test_without_a_model_the_embedded_one_draws() -> None:
    result = run("generate", "a red circle", "-s", "1", "--steps", "2", "-o", "a.png")
    assert (result.exit_code, result.stdout) == (0, "a.png\n")
    settings = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert (settings["Model"], settings["Size"]) == ("shapes", "128x128")


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        (("--count", "1"), 1),
        (("--count", "5", "--batch-size", "2"), 3),
        (("--count", "2", "--hires", "1.5"), 2),
        (("--prompts-file", "p.jsonl"), 3),
    ],
    ids=str,
)
def test_every_batch_is_checked_fitted_and_planned_once(
    model: str, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], batches: int
) -> None:
    calls: Counter[str] = Counter()

    def counted(module: str, name: str) -> None:
        whole = getattr(importlib.import_module(module), name)

        def count(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return whole(*arguments, **named)

        monkeypatch.setattr(f"{module}.{name}", count)

    counted("sdrt.request.request", "validate")
    for module in ("sdrt.run.planned", "sdrt.request.fitting"):
        counted(module, "fit")
    counted("sdrt.run.planned", "plan_passes")
    Path("p.jsonl").write_text('a cat\na cat\n{"prompt": "a dog", "cfg_scale": 2}\n')
    prompt = () if "--prompts-file" in options else ("a cat",)
    command = ["generate", *prompt, "-m", model, "--steps", "2", "-W", "64", "-H", "64", "-s", "1", *options]
    result = CliRunner().invoke(main, [*command, "-o", "{index}.png"])
    assert result.exit_code == 0, result.output
    assert calls == {"validate": batches, "fit": batches, "plan_passes": batches}


@pytest.mark.parametrize("made", [False, True])
def test_a_missing_or_empty_model_folder(made: bool, folder: Path) -> None:
    if made:
        (folder / "gone").mkdir()
    result = run("generate", "x", "-m", "./gone", "-o", "a.png")
    assert result.exit_code == 3
    assert "gone" in result.stderr
    assert not Path("a.png").exists()


def test_a_missing_provider_is_refused_before_any_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.model_folder.hub.download", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.setattr("sdrt.onnx.engine.available_providers", lambda: ("cpu",))
    result = run("generate", "x", "-m", "owner/name", "--provider", "cuda")
    assert result.exit_code == 4
    assert "no cuda provider" in result.stderr


def test_doctor_makes_an_image(model: str) -> None:
    result = run("doctor", "-m", model, "--json")
    report = json.loads(result.stdout)
    last = report["findings"][-1]
    assert (last["name"], last["status"]) == ("generation", "ok")
    assert report["exit_code"] == result.exit_code == 0


def test_doctor_fails_with_the_code_of_what_failed() -> None:
    assert run("doctor", "-m", "./none").exit_code == 3


def run_apart(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sdrt", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_closed_pipe_gives_no_traceback(model: str) -> None:
    with run_apart("info", model) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_whole_run_loads_no_torch(model: str) -> None:
    arguments = ["generate", "x", "-m", model, "--steps", "1", "-o", "a.png", "-q"]
    code = (
        "import sys, json\n"
        "from sdrt.cli import main\n"
        f"try: main({arguments!r}, prog_name='sdrt')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert FORBIDDEN.isdisjoint(json.loads(done.stdout.splitlines()[-1]))
