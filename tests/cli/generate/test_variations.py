"""Prompt files and wildcards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sdrt.images.metadata import read_parameters, save_options
from sdrt.prompts.wildcards import expand_wildcards
from tests.cli.commands import run, told

pytestmark = pytest.mark.usefixtures("folder")


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
        ({"hires_steps": 3}, "hires_steps has no effect without --hires"),
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
            'a\n{"palette": 5}',
            "p.txt, line 2: unknown setting 'palette': expected one of prompt, height, width, steps",
        ),
        ('{"steps": 5}', "p.txt, line 1: expected a prompt"),
        ('{"prompt": 5}', "p.txt, line 1: prompt is 5: expected a string"),
        ('{"prompt": "a", "steps": 2.5}', "p.txt, line 1: steps is 2.5: expected a whole number"),
        ('{"prompt": "a", "steps": true}', "p.txt, line 1: steps is True"),
        ('{"prompt": "a", "steps": 2, "num_inference_steps": 3}', "p.txt, line 1: steps is given twice"),
        ('{"prompt": "a", "steps": 0}', "p.txt, line 1: steps is 0"),
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


def test_a_prompts_file_without_an_end_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.cli.generate.variations._MAX_BYTES", 1000)
    Path("p.txt").write_text("a cat\n" * 500)
    result = run("generate", "--prompts-file", "p.txt", "-m", model)
    assert (result.exit_code, "p.txt has more than 0 MB" in result.stderr) == (2, True)
