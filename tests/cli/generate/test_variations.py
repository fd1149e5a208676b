"""Prompt files, wildcards, plots, and images that are made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt import RequestError
from sdrt.cli import main
from sdrt.cli.generate.from_metadata import options_of
from sdrt.cli.generate.variations import parse_axis
from sdrt.images.metadata import Parameters, read_parameters, save_options
from sdrt.prompts.wildcards import expand_wildcards
from sdrt.schedulers import SAMPLERS, SPACINGS

pytestmark = pytest.mark.usefixtures("folder")


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="sdrt", input=stdin)


def told(path: str | Path) -> Parameters:
    return Parameters.parse(read_parameters(Path(path))[1] or "")


# --- prompt files --------------------------------------------------------------------------------------------


def test_every_line_is_a_prompt_with_settings_of_its_own(model: str) -> None:
    Path("p.txt").write_text(
        'a cat\n\n# not this\n{"prompt": "a dog", "steps": 1, "sampler": "ddim", "seed": 40}\n'
        '{"prompt": "a cow", "cfg_scale": 3, "num_inference_steps": 1}\n'
    )
    result = run(
        *("generate", "--prompts-file", "p.txt", "-m", model, "--steps", "2", "-s", "7", "--count", "2"),
        *("-o", "{index}.png", "--json"),
    )
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    assert about["prompts"] == ["a cat", "a cat", "a dog", "a dog", "a cow", "a cow"]
    assert about["seeds"] == [7, 8, 40, 41, 9, 10]
    assert about["own_settings"][2] == {"steps": 1, "scheduler": "ddim"}
    assert (told("3.png").settings["Sampler"], told("3.png").settings["Seed"]) == ("DDIM", "41")
    assert (told("5.png").settings["CFG scale"], told("5.png").settings["Steps"]) == ("3.0", "1")


@pytest.mark.parametrize(("seed", "meant"), [("-5", 2**64 - 5), (str(2**63 + 7), 2**63 + 7)])
def test_seeds_that_other_programs_write(model: str, seed: str, meant: int) -> None:
    run("generate", "a cat", "-m", model, "--steps", "1", "-s", "7", "-o", "a.png")
    text = (read_parameters(Path("a.png"))[1] or "").replace("Seed: 7,", f"Seed: {seed},")
    with Image.open("a.png") as image:
        image.save("b.png", **save_options("PNG", text))
    report = run("generate", "--from", "b.png", "-m", model, "-o", "c.png", "--json")
    assert json.loads(report.stdout)["seeds"] == [meant]


def test_a_seed_that_does_not_say_which(model: str) -> None:
    run("generate", "a cat", "-m", model, "--steps", "1", "-s", "7", "-o", "a.png")
    text = (read_parameters(Path("a.png"))[1] or "").replace("Seed: 7,", "Seed: -1,")
    with Image.open("a.png") as image:
        image.save("b.png", **save_options("PNG", text))
    refused = run("generate", "--from", "b.png", "-m", model, "-o", "c.png")
    assert (
        refused.exit_code,
        "its Seed is '-1': expected the seed that was used; give one with --seed" in refused.stderr,
    ) == (
        2,
        True,
    )
    assert run("generate", "--from", "b.png", "-m", model, "-o", "c.png", "-s", "7").exit_code == 0
    with Image.open("a.png") as one, Image.open("c.png") as two:
        assert one.tobytes() == two.tobytes()


def test_a_line_may_ask_for_a_random_seed(model: str) -> None:
    Path("p.jsonl").write_text('{"prompt": "a cat", "seed": -1}\n{"prompt": "a cat", "seed": -1}\n')
    options = ("-m", model, "--steps", "1", "-s", "7", "--count", "2", "-o", "{index}.png", "--json")
    seeds = json.loads(run("generate", "--prompts-file", "p.jsonl", *options).stdout)["seeds"]
    assert seeds[1] == seeds[0] + 1
    assert len({*seeds, 7, 8}) == 6
    assert [told(f"{index}.png").settings["Seed"] for index in range(4)] == list(map(str, seeds))


def test_a_line_may_have_lists_and_switches(model: str) -> None:
    Image.effect_noise((64, 64), 60).convert("RGB").save("in.png")
    Image.new("L", (64, 64), 255).save("mask.png")
    lines = [
        {"prompt": "a cat", "timesteps": [900, 500, 100], "scheduler": "euler"},
        {"prompt": "a cat", "sigmas": [10, 2.5, 0], "scheduler": "euler", "max_size": 4096},
        {"prompt": "a cat", "image": "in.png", "mask_image": "mask.png", "composite": False},
    ]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = run("generate", "--prompts-file", "p.jsonl", "-m", model, "--steps", "2", "-o", "{index}.png")
    assert result.exit_code == 0, result.output
    assert told("0.png").settings["Timesteps"] == "900,500,100"
    assert told("1.png").settings["Sigmas"] == "10,2.5,0"
    assert told("2.png").settings["Composite"] == "False"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100}, "width is 100: expected a multiple of 8"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"scheduler": "nope"}, "nope"),
        ({"image": "nope.png"}, "nope.png"),
        ({"hires_steps": 3}, "hires_steps has no effect without hires_scale"),
    ],
    ids=str,
)
def test_errors_name_the_line(model: str, settings: dict[str, object], message: str) -> None:
    Path("p.txt").write_text("a cat\n" + json.dumps({"prompt": "a dog", **settings}))
    result = run("generate", "--prompts-file", "p.txt", "-m", model, "--steps", "1", "-o", "{index}.png")
    assert result.exit_code == 2
    assert re.search(rf"error: p.txt, line 2: .*{re.escape(message)}", result.stderr)
    assert not Path("0.png").exists()


def test_prompts_from_stdin(model: str) -> None:
    result = run(
        *("generate", "--prompts-file", "-", "-m", model, "--steps", "1", "-o", "{index}.png"),
        stdin="\ufeffa cat\na dog\n",
    )
    assert result.stdout.splitlines() == ["0.png", "1.png"]
    assert [told(name).prompt for name in ("0.png", "1.png")] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "p.txt contains no prompts"),
        ('{"prompt": "a"', "p.txt, line 1: not valid JSON"),
        ('{"prompt": "a", "timesteps": 5}', "timesteps is 5: expected a list of whole numbers"),
        ('{"prompt": "a", "sigmas": [1, "x"]}', "expected a list of numbers"),
        ('{"prompt": "a", "composite": 1}', "composite is 1: expected true or false"),
        (
            'a\n{"colour": 5}',
            "p.txt, line 2: unknown setting 'colour': expected one of prompt, height, width, steps",
        ),
        ('{"steps": 5}', "p.txt, line 1: expected a prompt"),
        ('{"prompt": 5}', "p.txt, line 1: prompt is 5: expected a string"),
        ('{"prompt": "a", "steps": 2.5}', "p.txt, line 1: steps is 2.5: expected a whole number"),
        ('{"prompt": "a", "steps": true}', "p.txt, line 1: steps is True"),
        ('{"prompt": "a", "steps": 2, "num_inference_steps": 3}', "p.txt, line 1: steps is given twice"),
        ('{"prompt": "a", "steps": 0}', "num_inference_steps is 0"),
        ('{"prompt": "a", "scheduler": "nope"}', "unknown scheduler 'nope'"),
        ('{"prompt": "a", "image": "nope.png"}', "image 'nope.png' cannot be read"),
        ('{"prompt": "a", "seed": -9223372036854775809}', "seed is -9223372036854775809"),
        ('{"prompt": "a", "prompt_syntax": "nope"}', "prompt_syntax is 'nope'"),
        (b"\xff\xfe", "p.txt is not UTF-8 text"),
        ('{"prompt": "a", "x": ' + "[" * 100_000, "p.txt, line 1: not valid JSON"),
    ],
    ids=str,
)
def test_files_that_are_refused(model: str, content: str | bytes, message: str) -> None:
    Path("p.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run("generate", "--prompts-file", "p.txt", "-m", model, "--steps", "1")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(Path().glob("*.png"))


def test_a_file_that_is_not_there_and_both_ways_at_once(model: str) -> None:
    assert "--prompts-file nope cannot be read" in run("generate", "--prompts-file", "nope").stderr
    assert "got both" in run("generate", "a cat", "--prompts-file", "nope").stderr


# --- wildcards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a {red|blue} cat", {"a red cat", "a blue cat"}),
        ("{a|b{c|d}}", {"a", "bc", "bd"}),
        ("{a|}x", {"ax", "x"}),
        ("{|}", {""}),
        ("no {braces} here", {"no {braces} here"}),
        ("a|b", {"a|b"}),
        ("{a|b", {"{a|b"}),
        ("a|b}", {"a|b}"}),
        ("[a|b] {c}", {"[a|b] {c}"}),
        ("{{a|b}}", {"{a}", "{b}"}),
    ],
)
def test_wildcards(prompt: str, expected: set[str]) -> None:
    assert {expand_wildcards(prompt, seed) for seed in range(60)} == expected
    assert expand_wildcards(prompt, 5) == expand_wildcards(prompt, 5)


def test_images_say_which_prompt_they_took(model: str) -> None:
    run(
        "generate",
        "a {red|blue} cat",
        "-m",
        model,
        "--steps",
        "1",
        "-s",
        "1",
        "--count",
        "8",
        "-o",
        "{seed}.png",
    )
    assert {told(f"{seed}.png").prompt for seed in range(1, 9)} == {"a red cat", "a blue cat"}
    run(
        *("generate", "a {red|blue} cat", "-m", model, "--steps", "1", "-o", "plain.png"),
        *("--prompt-syntax", "plain"),
    )
    assert told("plain.png").prompt == "a {red|blue} cat"
    run(
        *("generate", "a {red|blue}++ cat", "-m", model, "--steps", "1", "-s", "1", "-o", "compel.png"),
        *("--prompt-syntax", "compel"),
    )
    assert told("compel.png").prompt in ("a red++ cat", "a blue++ cat")
    assert told("compel.png").settings["Prompt syntax"] == "compel"


# --- plots ---------------------------------------------------------------------------------------------------


def test_a_plot_has_an_image_for_each_combination(model: str) -> None:
    result = run(
        *("plot", "a cat", "-m", model, "-x", "steps=1,2", "-y", "scheduler=euler,DDIM", "-z", "seed=3,4"),
        *("-o", "plot.png", "--json"),
    )
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    assert (about["grid"], about["files"], about["seeds"]) == ("plot.png", [], [3] * 4 + [4] * 4)
    assert [own.get("scheduler", "euler") for own in about["own_settings"]] == ["euler"] * 2 + [
        "ddim"
    ] * 2 + ["euler"] * 2 + ["ddim"] * 2
    assert [path.name for path in Path().glob("*.png")] == ["plot.png"]


def test_a_plot_over_random_seeds_shows_which_they_are(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    monkeypatch.setattr(
        "sdrt.images.contact_sheet.ContactSheet.add", lambda self, image, label: labels.append(label)
    )
    options = ("-m", model, "--steps", "1", "-s", "-1", "-o", "plot.png", "--json")
    about = json.loads(run("plot", "a cat", *options, "-x", "seed=-1,-1,4294967299,-2").stdout)
    assert about["seeds"][2:] == [2**32 + 3, 2**64 - 2]
    assert len(set(about["seeds"])) == 4
    assert min(about["seeds"]) >= 0
    assert labels == [f"seed {seed}" for seed in about["seeds"]]


def test_a_plot_over_prompts_and_sizes(model: str) -> None:
    result = run(
        *("plot", "a cat", "-m", model, "--steps", "1", "-s", "2"),
        *("-x", 'prompt="a cat, sitting",a dog', "-y", "width=64,96"),
    )
    assert result.stdout == "sdrt-plot-2.png\n"
    with Image.open("sdrt-plot-2.png") as sheet:
        assert sheet.width > 2 * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "expected a setting and its values"),
        ("colour=1,2", "unknown setting 'colour'"),
        ("steps=", "there are no values"),
        ("steps=1,,2", "there are no values, or one is empty"),
        ("steps=1,a", "expected whole numbers"),
        ("eta=1,a", "expected numbers"),
        ('prompt="a,b', "put a value that contains a comma in quotes"),
    ],
)
def test_axes_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        parse_axis(text)


def test_axes_of_one_field(model: str) -> None:
    result = run("plot", "a", "-m", model, "-x", "steps=1", "-y", "steps=2")
    assert (result.exit_code, "steps is given to two axes" in result.stderr) == (2, True)
    three = run("plot", "a", "-m", model, "-x", "steps=1", "-y", "steps=2", "-z", "seed=3")
    assert "steps is given to two axes" in three.stderr


# --- images made again -------------------------------------------------------------------------------------


def repeated(model: str, *arguments: str, again: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    made = run("generate", "a cat", "-m", model, "--steps", "3", "-o", "a.png", *arguments)
    assert made.exit_code == 0, made.output
    result = run("generate", "--from", "a.png", "-m", model, "-o", "b.png", *again)
    assert result.exit_code == 0, result.output
    return Path("a.png").read_bytes(), Path("b.png").read_bytes()


USUAL = [name for name, row in SAMPLERS.items() if not (row.is_for_edm or row.is_for_flow)]


@pytest.mark.parametrize("scheduler", USUAL)
def test_an_image_is_made_again_bit_for_bit(model: str, scheduler: str) -> None:
    first, second = repeated(model, "--scheduler", scheduler, "-s", "5")
    assert first == second


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_spacing_is_repeated(model: str, spacing: str) -> None:
    first, second = repeated(model, "--scheduler", "euler", "--spacing", spacing)
    assert first == second


@pytest.mark.parametrize(
    "options",
    [
        ("-n", "a dog, [blue]:", "--guidance-scale", "3.3", "--clip-skip", "1"),
        ("--scheduler", "ddim", "--eta", "0.123456789"),
        ("-W", "80", "-H", "48"),
        ("--prompt-syntax", "plain"),
        ("--prompt-syntax", "compel", "-n", '("a \\"b\\"", "c-, d").blend(1, 0.5)'),
        ("--timesteps", "999,700,5", "--scheduler", "dpmpp_2m", "--guidance-rescale", "0.7"),
        ("--sigmas", "14.6,3.3,0.5,0", "--scheduler", "euler"),
        ("-W", "160", "-H", "64", "--tile-size", "96", "--tile-overlap", "40"),
        ("--hires", "1.7", "--hires-strength", "0.61", "--hires-steps", "5", "--hires-upscaler", "lanczos"),
    ],
    ids=str,
)
def test_settings_are_repeated(model: str, options: tuple[str, ...]) -> None:
    first, second = repeated(model, *options)
    assert first == second


@pytest.mark.parametrize(
    "options",
    [
        ("--strength", "0.7"),
        ("--mask", "mask.png", "--mask-blur", "2.7182818"),
        ("--mask", "mask.png", "--padding-mask-crop", "8", "--no-composite"),
        ("--outpaint", "left=24,top=8"),
    ],
    ids=str,
)
def test_an_image_from_an_image_needs_it_again(model: str, options: tuple[str, ...]) -> None:
    Image.effect_noise((64, 48), 60).convert("RGB").save("in.png")
    mask = Image.new("L", (64, 48))
    mask.paste(255, (20, 20, 40, 40))
    mask.save("mask.png")
    given = ("-i", "in.png", *(("--mask", "mask.png") if "--mask" in options else ()))
    first, second = repeated(model, "-i", "in.png", *options, again=given)
    assert first == second
    refused = run("generate", "--from", "a.png", "-m", model, "-o", "c.png")
    assert "was made from another image; give that one with -i" in refused.stderr


def test_what_is_given_beside_it_goes_before(model: str) -> None:
    repeated(model, "-s", "5", "-n", "blue", again=("-s", "6", "-n", "green"))
    assert (told("b.png").settings["Seed"], told("b.png").negative_prompt) == ("6", "green")
    assert run("generate", "--from", "a.png", "a dog", "-m", model, "-o", "c.png").exit_code == 0
    assert told("c.png").prompt == "a dog"


def test_sizes_given_beside_it_have_the_usual_limit(model: str) -> None:
    repeated(model, again=("-W", "256", "--hires", "1.5", "--hires-strength", "0.5"))
    with Image.open("b.png") as image:
        assert image.size == (384, 96)


def test_a_masked_image_of_any_size_is_repeated(model: str) -> None:
    Image.effect_noise((70, 50), 60).convert("RGB").save("in.png")
    Image.new("L", (70, 50), 255).save("mask.png")
    given = ("-i", "in.png", "--mask", "mask.png")
    for size in ((), ("-W", "96", "-H", "64")):
        first, second = repeated(model, *given, *size, "-f", again=(*given, "-f"))
        assert first == second


def test_a_spacing_given_beside_it_replaces_the_one_in_the_name(model: str) -> None:
    repeated(model, "--scheduler", "Euler Karras", again=("--spacing", "exponential"))
    assert told("b.png").settings["Sampler"] == "Euler"
    assert told("b.png").settings["Schedule type"] == "Exponential"


def test_steps_given_beside_it_replace_its_timesteps(model: str) -> None:
    repeated(model, "--scheduler", "euler", "--timesteps", "900,500,100", again=("--steps", "2"))
    assert (told("b.png").settings["Steps"], "Timesteps" in told("b.png").settings) == ("2", False)


def test_a_scheduler_from_a_file_is_asked_for_again(model: str) -> None:
    Path("own.json").write_text('{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.02}')
    first, second = repeated(model, "--scheduler", "own.json", again=("--scheduler", "own.json"))
    assert first == second
    refused = run("generate", "--from", "a.png", "-m", model, "-o", "c.png")
    assert "was made with 'own.json'; give the file with --scheduler" in refused.stderr


def test_the_embedded_model_is_found_by_its_name() -> None:
    pytest.importorskip("sdrt_models")
    assert run("generate", "a red circle", "--steps", "2", "-o", "a.png", "-s", "1").exit_code == 0
    assert run("generate", "--from", "a.png", "-o", "b.png").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


OURS = {"Steps": "2", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "64x64", "RNG": "CPU"}


def image_that_says(settings: dict[str, str]) -> str:
    text = str(Parameters(prompt="a cat", settings=settings))
    Image.new("RGB", (8, 8)).save("said.png", **save_options("PNG", text))
    return "said.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Steps": "many"}, "its Steps is 'many': expected a whole number"),
        ({"Size": "large"}, "its Size is 'large'"),
        ({"Model": "another"}, "was made by the model 'another'; give the model with -m"),
        ({"RNG": "GPU"}, "noise that sdrt cannot draw"),
        ({"Lora hashes": "a"}, "has the setting 'Lora hashes' of another program"),
        ({"Mask blur": "4"}, "was made with a mask"),
        ({"Noise level": "4"}, "was made from another image"),
    ],
)
def test_metadata_that_cannot_be_repeated(changes: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        options_of(image_that_says(OURS | changes), set())


def test_what_others_write_is_read() -> None:
    found = options_of(image_that_says(OURS | {"Schedule type": "Karras", "Clip skip": "2"}), set())
    assert (found["scheduler"], found["clip_skip"], found["width"]) == ("Euler Karras", 1, 64)


def test_an_image_that_says_nothing() -> None:
    Image.new("RGB", (8, 8)).save("blank.png")
    result = run("generate", "--from", "blank.png")
    assert (result.exit_code, "does not say how it was made" in result.stderr) == (2, True)


def test_a_prompts_file_without_an_end_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.cli.generate.variations._MAX_BYTES", 1000)
    Path("p.txt").write_text("a cat\n" * 500)
    result = run("generate", "--prompts-file", "p.txt", "-m", model)
    assert (result.exit_code, "p.txt has more than 0 MB" in result.stderr) == (2, True)


def test_a_plot_that_fails_leaves_the_old_one(model: str) -> None:
    options = ("plot", "a cat", "-m", model, "--steps", "1", "-o", "p.png", "-f")
    assert run(*options, "-x", "clip_skip=0,1").exit_code == 0
    before = Path("p.png").read_bytes()
    assert run(*options, "-x", "clip_skip=0,900").exit_code == 2
    assert Path("p.png").read_bytes() == before


def test_tiling_of_the_vae_is_repeated(model: str) -> None:
    assert run("generate", "a cat", "-m", model, "--steps", "1", "--vae-tiling", "-o", "a.png").exit_code == 0
    assert told("a.png").settings["VAE tiling"] == "True"
    result = run("generate", "--from", "a.png", "-m", model, "-o", "b.png")
    assert result.exit_code == 0, result.stderr
    assert told("b.png").settings["VAE tiling"] == "True"
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
