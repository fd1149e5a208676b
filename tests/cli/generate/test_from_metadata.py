"""`--from` on images of other programs and of strangers: limits, `--approximate`, and what a user is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt.cli import main
from sdrt.cli.generate.from_metadata import options_of
from sdrt.images.metadata import Parameters, read_metadata, save_options

pytestmark = pytest.mark.usefixtures("folder")

LINE = "Steps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"
OURS = f"{LINE}, RNG: CPU, Version: sdrt 0.1.0"


def image_that_says(text: str, name: str = "said.png") -> str:
    Image.new("RGB", (8, 8)).save(name, **save_options("PNG", text))
    return name


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["generate", *arguments], prog_name="sdrt")


def made_of(text: str, model: str, *arguments: str) -> Result:
    return run("--from", image_that_says(text), "-m", model, "-o", "made.png", "-f", *arguments)


# --- another program's noise and settings ----------------------------------------------------------------------


def test_approximate_goes_on_and_says_what_differs(model: str) -> None:
    text = f'a cat\nNegative prompt: dog\n{LINE}, ENSD: 31337, Lora hashes: "a: 1", Version: v1.10.1'
    text = text.replace("Euler", "Euler a")
    refused = made_of(text, model)
    assert (refused.exit_code, refused.stdout) == (2, "")
    for part in ("noise that sdrt cannot draw", "'ENSD'", "the LoRAs 'a: 1'", "--lora-dir", "--approximate"):
        assert part in refused.stderr
    assert not Path("made.png").exists()

    made = made_of(text, model, "--approximate")
    assert (made.exit_code, made.stdout) == (0, "made.png\n")
    assert "made as closely as possible; these differ: " in made.stderr
    for part in ("'ENSD' ('31337')", "'Lora hashes' ('a: 1')", "the noise (RNG not named"):
        assert part in made.stderr
    found = read_metadata("made.png")
    assert (found.prompt, found.negative_prompt) == ("a cat", "dog")
    assert {"Sampler": "Euler a", "Seed": "1", "RNG": "CPU"}.items() <= found.settings.items()
    assert "ENSD" not in found.settings


def test_quiet_is_quiet(model: str) -> None:
    assert made_of(f"a cat\n{LINE}", model, "--approximate", "-q").stderr == ""


def test_approximate_needs_metadata() -> None:
    result = run("a cat", "--approximate")
    assert (result.exit_code, "--approximate has no effect without --from" in result.stderr) == (2, True)


def test_a_seed_of_one_s_own_asks_for_other_noise_anyway(model: str) -> None:
    made = made_of(f"a cat\n{LINE}, Variation seed: 5, Variation seed strength: 0.1", model, "-s", "3")
    assert (made.exit_code, "differ" in made.stderr) == (0, False)
    assert read_metadata("made.png").settings["Seed"] == "3"


def test_a_scheduler_of_one_s_own_replaces_one_that_there_is_not(model: str) -> None:
    text = f"a cat\n{LINE}, RNG: CPU, Schedule rho: 5".replace("Euler", "no such sampler")
    assert "has settings of another program: 'Sampler', 'Schedule rho'" in made_of(text, model).stderr
    made = made_of(text, model, "--scheduler", "ddim")
    assert (made.exit_code, "differ" in made.stderr) == (0, False)


@pytest.mark.parametrize("embedding", ["Embeddings: easy", 'TI hashes: "easy: abc"'])
def test_embeddings_are_asked_for_and_may_be_left_out(model: str, embedding: str) -> None:
    text = f"a cat\n{LINE}, RNG: CPU, {embedding}"
    assert "give the files with --embedding" in made_of(text, model).stderr
    made = made_of(text, model, "--approximate")
    assert (made.exit_code, "these differ: 'Embeddings'" in made.stderr) == (0, True)


def test_a_model_or_image_that_is_missing_is_not_approximated() -> None:
    text = f"a cat\n{LINE}, Model: another"
    assert "give the model with -m" in run("--from", image_that_says(text), "--approximate").stderr
    text = f"a cat\n{LINE}, Denoising strength: 0.5"
    assert "give that one with -i" in run("--from", image_that_says(text), "--approximate").stderr


def test_what_the_metadata_leave_out_is_said(model: str) -> None:
    made = made_of("a cat\nSteps: 2, Sampler: Euler, Size: 64x64, RNG: CPU", model)
    assert made.exit_code == 0
    assert "said.png does not say CFG scale, seed; sdrt uses its defaults" in made.stderr
    assert "does not say" not in made_of(f"a cat\n{OURS}", model).stderr


def test_details_are_said_without_being_asked(model: str) -> None:
    made = made_of(f"a cat\n{LINE}, RNG: CPU".replace("Euler", "DPM++ SDE"), model)
    assert (made.exit_code, "the fresh noise of 'DPM++ SDE'" in made.stderr) == (0, True)


def test_prompts_that_a1111_reads_in_another_way_are_said(model: str) -> None:
    text = f"[a cat:a dog:1.0]\n{LINE}, RNG: CPU, Version: v1.5.2"
    assert "'prompt editing before A1111 1.6'" in made_of(text, model).stderr
    assert made_of(text, model, "--approximate").exit_code == 0
    made = made_of(f"a cat BREAK a dog\n{LINE}, RNG: CPU, Version: v1.10.1", model)
    assert (made.exit_code, "of unequal length" in made.stderr) == (0, True)


def test_texts_of_a_file_are_escaped(model: str) -> None:
    text = f"a cat\n{LINE}, RNG: \x1b[1m, \x1b[31mred: \x1b[2J"
    for arguments in ((), ("--approximate",)):
        told = made_of(text, model, *arguments).stderr
        assert ("\\x1b[31mred" in told, "\x1b" in told) == (True, False)


@pytest.mark.parametrize("batch", ["many", "", "-1", "9" * 5000])
def test_a_batch_size_is_not_repeated(model: str, batch: str) -> None:
    made = made_of(f"a cat\n{LINE}, Batch size: {batch}, RNG: CPU, Version: sdrt 0.1.0", model)
    assert made.exit_code == 0, made.stderr
    assert "Batch size" not in read_metadata("made.png").settings


def test_an_image_made_with_low_vram_is_made_again(model: str) -> None:
    assert run("a cat", "-m", model, "--steps", "2", "-s", "1", "--low-vram", "-o", "a.png").exit_code == 0
    for arguments in ((), ("--low-vram",), ("--no-low-vram",)):
        made = run("--from", "a.png", "-m", model, "-o", "b.png", "-f", *arguments)
        assert made.exit_code == 0, made.stderr
        with Image.open("a.png") as first, Image.open("b.png") as second:
            # The U-Net ran once for two rows or twice for one, which rounds differently.
            assert np.abs(np.asarray(first, int) - np.asarray(second, int)).max() <= 1
        assert read_metadata("a.png").text == read_metadata("b.png").text


def test_braces_in_metadata_are_no_wildcards(model: str) -> None:
    assert made_of(f"a {{red|blue}} cat\n{OURS}", model).exit_code == 0
    assert read_metadata("made.png").prompt == "a {red|blue} cat"
    # A prompt of the command line has wildcards.
    assert made_of(f"a dog\n{OURS}", model, "a {red|red} cat").exit_code == 0
    assert read_metadata("made.png").prompt == "a red cat"


def test_a_sampler_is_no_file(model: str) -> None:
    Path("own.json").write_text('{"_class_name": "DDIMScheduler"}')
    for name in ("own.json", "./own.json", "/dev/zero"):
        result = made_of(f"a cat\n{OURS}".replace("Euler", name), model)
        assert (result.exit_code, "'Sampler'" in result.stderr) == (2, True)


# --- limits --------------------------------------------------------------------------------------------------

_MAIN = """
import resource, sys
from pathlib import Path
from sdrt.cli import main
try:
    main(sys.argv[1:], prog_name="sdrt")
finally:
    status = Path("/proc/self/status")
    # On Linux, the other number begins with the memory of the process that started this one.
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    print("peak", (peaks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] >> 10, file=sys.stderr)
"""


def peak_of(*arguments: str) -> tuple[int, str, int]:
    """The exit code, stderr and the most memory in MB of a process."""
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "generate", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
        timeout=100,
    )
    errors, _, peak = done.stderr.rpartition("peak ")
    return done.returncode, errors, int(peak)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"Size": "8192x8192"}, "width is 8192|height is 8192"),
        ({"Size": "999999x64"}, "width is 999999"),
        (
            {"Size": "2048x2048", "Hires upscale": "16", "Denoising strength": "0.5"},
            "with --hires is 32768",
        ),
        ({"Hires upscale": "1e9", "Denoising strength": "0.5"}, "--hires is 1000000000.0"),
        ({"Size": "16384x16384", "Tile size": "64"}, "is 16384"),
        ({"Size": "4096x4096", "Tile size": "4096"}, "is 4096"),
        ({"Steps": "100000"}, "--steps is 100000"),
        (
            {"Hires steps": "100000", "Hires upscale": "2", "Denoising strength": "0.5"},
            "--hires-steps is 100000",
        ),
        ({"Timesteps": ",".join(map(str, range(2000, 0, -1)))}, "timesteps"),
        ({"CFG scale": "1e300"}, "--guidance-scale"),
        ({f"a{index}": "1" for index in range(5000)}, "settings: expected at most 1000"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_file_of_a_few_bytes_keeps_the_limits_of_options(
    model: str, settings: dict[str, str], message: str
) -> None:
    base = {"Steps": "2", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "64x64", "RNG": "CPU"}
    for own in ({"Version": "sdrt 0.1.0"}, {}):
        if not own and "Hires steps" in settings:
            continue  # A1111 counts them differently
        text = str(Parameters(prompt="a cat", settings=base | settings | own))
        code, errors, peak = peak_of(
            "--from", image_that_says(text), "-m", model, "-o", "x.png", "--approximate"
        )
        assert code == 2, errors
        assert any(part in errors for part in message.split("|")), errors
        assert peak < 400


@pytest.mark.parametrize("prompts", ["{}\n", "a cat\nNegative prompt: {}\n"], ids=["prompt", "negative"])
def test_a_long_prompt_keeps_the_limit_of_the_option(model: str, prompts: str) -> None:
    text = prompts.format("word " * 200_000) + OURS
    code, errors, peak = peak_of("--from", image_that_says(text), "-m", model, "-o", "x.png")
    assert (code, "characters: expected at most 20000" in errors) == (2, True)
    assert peak < 400


def test_a_larger_size_is_the_user_s_to_allow(model: str) -> None:
    name = image_that_says(f"a cat\n{OURS}".replace("64x64", "2056x64").replace("Steps: 2", "Steps: 1"))
    refused = run("--from", name, "-m", model, "-o", "x.png")
    assert (refused.exit_code, "--max-size 2056" in refused.stderr) == (2, True)
    options = options_of(name, {"model"})
    assert "max_size" not in options
    assert (options["width"], options["height"]) == (2056, 64)
