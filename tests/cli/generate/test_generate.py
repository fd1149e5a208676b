"""`sdrt generate` and `sdrt info` on a real tiny model."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

import sdrt
from sdrt.cli import main
from sdrt.cli.generate.jobs import plan
from sdrt.cli.generate.terminal_image import ImageProgress, draw
from sdrt.images.metadata import Parameters, read_parameters

pytestmark = pytest.mark.usefixtures("folder")
FORBIDDEN = {"torch", "diffusers", "transformers", "optimum", "onnx", "sdrt_export"}


def sdrt_command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="sdrt")


def generate(model: str, *arguments: str, prompt: str = "a red circle") -> Result:
    return sdrt_command("generate", prompt, "-m", model, "--steps", "2", *arguments)


def pixels(path: Path | str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_the_file_is_the_image_that_the_python_api_gives(model: str) -> None:
    result = generate(model, "-s", "3", "-o", "a.png", "-n", "blue")
    assert (result.exit_code, result.stdout) == (0, "a.png\n")
    pipeline = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None)
    output = pipeline("a red circle", negative_prompt="blue", seed=3, num_inference_steps=2)
    assert pixels("a.png") == output.images[0].tobytes()


def test_metadata_is_complete_and_printed_back(model: str) -> None:
    generate(
        model, "-s", "3", "-o", "a.png", "-n", "blue", "--scheduler", "DPM++ 2M Karras", "--cfg_scale", "7"
    )
    text = sdrt_command("info", "a.png").stdout
    with Image.open("a.png") as image:
        size = f"{image.width}x{image.height}"
    name = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.name
    if "," in name:
        name = json.dumps(name)
    assert text == (
        "a red circle\nNegative prompt: blue\n"
        f"Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 3, Size: {size}, Model: {name}, "
        f"RNG: CPU, Version: sdrt {sdrt.__version__}\n"
    )
    about = json.loads(sdrt_command("info", "a.png", "--json").stdout)
    assert about["prompt"] == "a red circle"
    assert about["negative_prompt"] == "blue"
    assert about["settings"]["Seed"] == "3"


def test_clip_skip_and_eta_are_recorded_as_others_count_them(model: str) -> None:
    assert (
        generate(model, "-o", "a.png", "--clip-skip", "1", "--scheduler", "ddim", "--eta", "0.5").exit_code
        == 0
    )
    settings = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert (settings["Clip skip"], settings["Eta"]) == ("2", "0.5")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scheduler", "euler", "--spacing", "Uniform", "--eta", "0.5"], {"Schedule type": "Uniform"}),
        (["--scheduler", "ddim", "--eta", "0.5"], {"Eta": "0.5"}),
        # A1111 has nothing equal to these, and without a type it would take a default of the sampler.
        (
            ["--scheduler", "dpmpp_2m", "--spacing", "leading"],
            {"Schedule type": "DDIM", "Spacing": "leading"},
        ),
        (
            ["--scheduler", "dpmpp_2m", "--spacing", "linspace"],
            {"Schedule type": "SGM Uniform", "Spacing": "linspace"},
        ),
        (["--scheduler", "dpmpp_2m", "--spacing", "Automatic"], {"Schedule type": "Karras"}),
        (["--spacing", "trailing"], {"Spacing": "trailing"}),
        (["--spacing", "leading"], {}),
        (["--scheduler", "dpmpp_2m", "--spacing", "karras"], {"Schedule type": "Karras"}),
    ],
)
def test_only_what_made_the_image_is_recorded(model: str, arguments: list[str], said: dict[str, str]) -> None:
    assert generate(model, "-o", "a.png", "--steps", "2", *arguments).exit_code == 0
    settings = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert {
        key: value for key, value in settings.items() if key in ("Eta", "Schedule type", "Spacing")
    } == said


def test_progress_of_a_sampler_that_chooses_its_steps_promises_nothing(model: str) -> None:
    result = generate(model, "-o", "a.png", "--scheduler", "DPM adaptive")
    assert result.exit_code == 0
    assert ": step 1, " in result.stderr
    assert " left" not in result.stderr
    other = generate(model, "-o", "b.png")
    assert ": step 1/3, " in other.stderr
    assert " left" in other.stderr


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_other_formats_carry_the_text_too(model: str, suffix: str) -> None:
    assert generate(model, "-s", "1", "-o", f"a.{suffix}", prompt="Grüße").exit_code == 0
    assert sdrt_command("info", f"a.{suffix}").stdout.startswith("Grüße\nSteps: 2, ")


def test_no_metadata_leaves_it_out(model: str) -> None:
    generate(model, "-o", "a.png", "--no-metadata")
    result = sdrt_command("info", "a.png")
    assert result.exit_code == 2
    assert "does not say how it was made" in result.stderr


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
    result = sdrt_command(
        "generate", "one", "two", "-m", model, "--steps", "1", "-s", "5", "-b", "2", "--count", "1"
    )
    assert result.stdout == "sdrt-5.png\nsdrt-6.png\n"
    prompts = [Parameters.parse(read_parameters(Path(f"sdrt-{seed}.png"))[1] or "").prompt for seed in (5, 6)]
    assert prompts == ["one", "two"]


def test_seeds_of_64_bits_and_negative_ones(model: str) -> None:
    generate(model, "-s", str(2**32 + 7), "-o", "long.png")
    generate(model, "-s", "7", "-o", "short.png")
    assert pixels("long.png") == pixels("short.png")
    report = json.loads(generate(model, "-s", "-2", "--count", "3", "-o", "{index}.png", "--json").stdout)
    assert report["seeds"] == [2**64 - 2, 2**64 - 1, 0]
    again = sdrt_command("generate", "--from", "1.png", "-m", model, "-o", "again.png")
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
        (["--steps", "0"], 2, "num_inference_steps is 0"),
        (["--steps", "1001"], 2, "num_inference_steps is 1001"),
        (["-W", "60"], 2, "width is 60"),
        (["-H", "0"], 2, "height is 0"),
        (["-H", "-8"], 2, "height is -8"),
        (["-W", "4096"], 2, "--max-size"),
        (["--guidance-scale", "nan"], 2, "guidance_scale is nan"),
        (
            ["-s", str(2**64)],
            2,
            "seed is 18446744073709551616: expected a whole number from -2**63 to 2**64 - 1",
        ),
        (["--eta", "2"], 2, "eta is 2"),
        (["-n", "x" * 1_000_000], 2, "negative_prompt has 1000000 characters"),
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
    result = sdrt_command("generate", "a red circle", "-s", "1", "--steps", "2", "-o", "a.png")
    assert (result.exit_code, result.stdout) == (0, "a.png\n")
    settings = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert (settings["Model"], settings["Size"]) == ("shapes", "128x128")


def test_a_grid_shows_every_image_beside_their_files(model: str) -> None:
    result = sdrt_command(
        *("generate", "one", "two", "-m", model, "--steps", "1", "-s", "5", "--count", "3"),
        *("-o", "x.png", "--grid", "--json"),
    )
    report = json.loads(result.stdout)
    assert report["grid"] == "x-grid.png"
    assert len(report["files"]) == 6
    with Image.open("x-grid.png") as sheet, Image.open(report["files"][0]) as first:
        assert sheet.width > 3 * first.width  # a row per prompt
        assert 2 * first.height < sheet.height < 4 * first.height
        assert sheet.crop((8, 8, 8 + first.width, 8 + first.height)).tobytes() == first.tobytes()
    # As A1111's: how the first image was made.
    assert Parameters.parse(read_parameters(Path("x-grid.png"))[1] or "").settings["Seed"] == "5"


def test_the_name_of_a_grid_is_told_last_and_checked_first(model: str) -> None:
    arguments = ("-s", "4", "--count", "2", "-o", "p-{seed}.png", "--grid")
    assert generate(model, *arguments).stdout.splitlines() == ["p-4.png", "p-5.png", "p-4-grid.png"]
    Path("p-4.png").unlink()
    Path("p-5.png").unlink()
    refused = generate(model, *arguments)
    assert refused.exit_code == 2
    assert "p-4-grid.png exists already" in refused.stderr
    assert not Path("p-4.png").exists()


def test_previews_are_written_as_it_goes(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    preview = sdrt.StableDiffusionPipeline.preview.fget
    assert preview is not None

    def spied(self: sdrt.StableDiffusionPipeline) -> Any:
        written.append(Path("now.png").exists())
        return preview(self)

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "preview", property(spied))
    options = (
        "--preview-file",
        "now.png",
        "--preview-every",
        "1",
        "-b",
        "2",
        "--preview",
        "--scheduler",
        "euler",
    )
    assert generate(model, "-o", "a.png", *options).exit_code == 0
    assert written == [False, False, True]  # once to see that there is one, then after each of two steps
    with Image.open("now.png") as now, Image.open("a-0.png") as made:
        assert now.size == (2 * made.width, made.height)
    refused = generate(model, "-o", "b.png", "--preview-file", "now.png")
    assert (refused.exit_code, "--preview-file now.png exists already" in refused.stderr) == (2, True)
    same = generate(model, "-o", "b.png", "--preview-file", "./b.png")
    assert (same.exit_code, "an image has this name too" in same.stderr) == (2, True)


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_preview_that_cannot_be_written_is_a_warning(
    model: str, monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...]
) -> None:
    preview = sdrt.StableDiffusionPipeline.preview.fget
    assert preview is not None
    expected = generate(model, "-o", "b.png", "-b", "2", "-s", "3")

    def spied(self: sdrt.StableDiffusionPipeline) -> Any:
        # As when somebody takes the name after the check.
        Path("now.png").mkdir(exist_ok=True)
        return preview(self)

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "preview", property(spied))
    found = generate(
        *(model, "-o", "a.png", "-b", "2", "-s", "3"),
        *("--preview-file", "now.png", "--preview-every", "1", *quiet),
    )
    assert (expected.exit_code, found.exit_code) == (0, 0)
    assert found.stderr.count("warning: no preview: now.png cannot be written") == (not quiet)
    for made, other in (("a-0.png", "b-0.png"), ("a-1.png", "b-1.png")):
        with Image.open(made) as image, Image.open(other) as same:
            assert image.tobytes() == same.tobytes()


def test_a_terminal_gets_images_of_half_blocks() -> None:
    console = _console(no_color=False)
    image = Image.new("RGB", (4, 2), (200, 30, 30))
    image.paste((20, 40, 220), (0, 1, 4, 2))
    console.print(draw(image, 4, 20))
    assert console.file.getvalue().count("▀") == 4 * 1  # type: ignore[attr-defined]
    assert "38;2;200;30;30" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "48;2;20;40;220" in console.file.getvalue()  # type: ignore[attr-defined]
    with ImageProgress(console=console) as progress:
        progress.add_task("steps", total=2)
        progress.show(image)
    assert console.file.getvalue().count("▀") > 4  # type: ignore[attr-defined]


def test_a_terminal_without_colours_gets_no_images(model: str) -> None:
    console = _console(no_color=True)
    with ImageProgress(console=console) as progress:
        progress.add_task("steps", total=2)
        progress.show(Image.new("RGB", (4, 2), (200, 30, 30)))
    assert "▀" not in console.file.getvalue()  # type: ignore[attr-defined]
    told = generate(model, "-o", "a.png", "--preview").stderr
    assert "--preview: cannot show images, because stderr is not a terminal with colours" in told


def _console(*, no_color: bool) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=no_color,
        width=40,
        height=20,
    )


def test_an_error_is_not_hidden_by_the_sheet_that_fails_after_it(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sdrt.StableDiffusionPipeline.stream
    calls = []

    def short_of_memory(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            Path("x-grid.png").write_text("somebody else's")
            raise sdrt.OutOfMemoryError("no memory for the U-Net")
        return original(*arguments, **named)

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "stream", short_of_memory)
    result = generate(model, "-s", "1", "--count", "2", "-o", "x.png", "--grid")
    assert result.exit_code == 5
    assert "no memory for the U-Net" in result.stderr
    assert "no contact sheet: " in result.stderr
    assert Path("x-grid.png").read_text() == "somebody else's"


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (("a cat", "a dog"), ("a cat", "a dog")),
        (("a", "a", "b"), ("1: a", "2: a", "b")),
        (("東京", " "), ("1: 東京", "2:  ")),
    ],
)
def test_labels_tell_images_apart(prompts: tuple[str, ...], labels: tuple[str, ...]) -> None:
    options = SimpleNamespace(
        prompts=prompts, count=None, batch_size=1, output=None, force=False, no_metadata=True
    )
    settings = {"prompt_syntax": "a1111", "negative_prompt": "", "width": None, "height": None, "seed": 1}
    settings |= {"prompt_comments": False, "prompt_2": None, "negative_prompt_2": None}
    vars(options).update(prompts_file=None, settings=settings, with_settings=lambda _: options)
    vars(options).update(wildcard_files=lambda: None, literal=frozenset())
    assert tuple(image.label for image in plan(options)) == labels  # type: ignore[arg-type]


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
    for module in ("sdrt.run.planned", "sdrt.request.fitted"):
        counted(module, "fit")
    counted("sdrt.run.planned", "plan_passes")
    Path("p.jsonl").write_text('a cat\na cat\n{"prompt": "a dog", "cfg_scale": 2}\n')
    prompt = () if "--prompts-file" in options else ("a cat",)
    command = ["generate", *prompt, "-m", model, "--steps", "2", "-W", "64", "-H", "64", "-s", "1", *options]
    result = CliRunner().invoke(main, [*command, "-o", "{index}.png"])
    assert result.exit_code == 0, result.output
    assert calls == {"validate": batches, "fit": batches, "plan_passes": batches}


def test_an_interrupted_grid_shows_what_was_made(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sdrt.StableDiffusionPipeline.stream
    calls = []

    def interrupted(self: sdrt.StableDiffusionPipeline, *args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "stream", interrupted)
    result = generate(model, "-s", "1", "--count", "4", "-o", "x.png", "--grid")
    assert result.exit_code == 130
    assert result.stdout.splitlines() == ["x-0.png", "x-1.png", "x-grid.png"]


@pytest.mark.parametrize("made", [False, True])
def test_a_missing_or_empty_model_folder(made: bool, folder: Path) -> None:
    if made:
        (folder / "gone").mkdir()
    result = sdrt_command("generate", "x", "-m", "./gone", "-o", "a.png")
    assert result.exit_code == 3
    assert "gone" in result.stderr
    assert not Path("a.png").exists()


def test_a_missing_provider_is_refused_before_any_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.model_folder.hub.download", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.setattr("sdrt.onnx.engine.available_providers", lambda: ("cpu",))
    result = sdrt_command("generate", "x", "-m", "owner/name", "--provider", "cuda")
    assert result.exit_code == 4
    assert "no cuda provider" in result.stderr


def test_info_on_a_malformed_manifest(model: str, folder: Path) -> None:
    source = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.path
    copy = Path(shutil.copytree(source, folder / "copy"))
    manifest = json.loads((copy / "sdrt.json").read_text(encoding="utf-8"))
    (copy / "sdrt.json").write_text(json.dumps(manifest | {"components": {"unet": 5}}), encoding="utf-8")
    result = sdrt_command("info", "copy")
    assert result.exit_code == 3
    assert "components.unet must list" in result.stderr


def test_force_is_needed_to_overwrite(model: str) -> None:
    Path("a.png").write_bytes(b"mine")
    assert generate(model, "-o", "a.png").exit_code == 2
    assert Path("a.png").read_bytes() == b"mine"
    assert generate(model, "-o", "a.png", "--force").exit_code == 0
    assert pixels("a.png")


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_no_file(
    model: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    result = generate(model, "-o", "a.png")
    assert result.exit_code == {MemoryError: 5, KeyboardInterrupt: 130}[type(error)]
    assert not list(folder.iterdir())


def test_info_summarises_a_model(model: str) -> None:
    about = json.loads(sdrt_command("info", model, "--json").stdout)
    assert about["target"] == "cpu"
    assert about["components"]["unet"]["bytes"] > 0
    assert about["components"]["unet"]["relative_error"] < 1e-4
    assert about["hashes"] == "not verified"
    assert json.loads(sdrt_command("info", model, "--verify", "--json").stdout)["hashes"] == "verified"
    generate(model, "-o", "a.png")
    assert "hashes          verified" in sdrt_command("info", model).stdout


def test_info_names_a_damaged_file(model: str, folder: Path) -> None:
    import shutil

    damaged = folder / "copy"
    source = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.path
    shutil.copytree(source, damaged)
    graph = damaged / "unet" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[-100] ^= 1
    graph.write_bytes(content)
    result = sdrt_command("info", "copy", "--verify")
    assert result.exit_code == 3
    assert "unet/model.onnx" in result.stderr


def test_info_of_a_folder_without_a_manifest(model: str, folder: Path) -> None:
    import shutil

    source = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.path
    shutil.copytree(source, folder / "copy", ignore=shutil.ignore_patterns("sdrt.json"))
    assert "no sdrt.json" in sdrt_command("info", "copy").stdout
    assert sdrt_command("info", "copy", "--verify").exit_code == 3


def test_doctor_makes_an_image(model: str) -> None:
    result = sdrt_command("doctor", "-m", model, "--json")
    report = json.loads(result.stdout)
    last = report["findings"][-1]
    assert (last["name"], last["status"]) == ("generation", "ok")
    assert report["exit_code"] == result.exit_code == 0


def test_doctor_fails_with_the_code_of_what_failed() -> None:
    assert sdrt_command("doctor", "-m", "./none").exit_code == 3


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
