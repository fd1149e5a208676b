"""`--wildcards`, and how images say what was chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from sdrt.cli.generate.jobs import Options, plan, plan_plot
from sdrt.cli.generate.variations import parse_axis
from sdrt.images.metadata import Parameters, save_options
from sdrt.prompts.wildcards import expand_wildcards
from sdrt.request.table import TABLE
from tests.cli.commands import run, told

XL = str(Path(__file__).parents[2] / "models" / "tiny-xl")
SEED_2 = ("-s", "2", "--steps", "1", "-o", "plain.png")


@pytest.fixture(autouse=True)
def colors(folder: Path) -> None:
    (folder / "wild").mkdir()
    (folder / "wild" / "colors.txt").write_text("# warm\nred\norange\n\nblue\n")


def generate(model: str, *arguments: str) -> Result:
    return run("generate", "-m", model, "--steps", "1", "-s", "1", *arguments)


def options(*prompts: str, **given: object) -> Options:
    settings = {row.name: row.default for row in TABLE if row.option} | {"negative_prompt": "", "seed": 1}
    other = {
        "prompts_file": None,
        "model": "shapes",
        "embeddings": (),
        "wildcards": "wild",
        "batch_size": 1,
        "count": 1,
        "output": None,
        "grid": True,
        "force": False,
        "no_metadata": False,
        "provider": "cpu",
        "provider_options": {},
        "allow_fallback": False,
        "vae_tiling": None,
        "low_vram": None,
        "threads": None,
        "revision": None,
        "as_json": False,
        "quiet": True,
    }
    return Options.from_parameters({"prompts": prompts, **settings, **other, **given})


def test_an_image_says_what_was_chosen_and_from_what(model: str) -> None:
    prompt, negative = "a __colors__ {cat|dog}", "{fog|rain}"
    result = generate(
        model, prompt, "-n", negative, "--wildcards", "wild", "--count", "4", "-o", "{seed}.png"
    )
    assert result.exit_code == 0, result.output
    for seed in range(1, 5):
        found = told(f"{seed}.png")
        assert found.prompt == expand_wildcards(prompt, seed, "wild")
        assert found.negative_prompt in ("fog", "rain")
        assert found.settings["Wildcard prompt"] == prompt
        assert found.settings["Wildcard negative prompt"] == negative
        assert list(found.settings)[-1] == "Version"
    assert len({told(f"{seed}.png").negative_prompt for seed in range(1, 5)}) == 2


def test_a_batch_has_the_negative_prompts_of_its_images(model: str) -> None:
    generate(model, "cat", "-n", "{fog|rain}", "-b", "4", "-o", "{seed}.png")
    seed = next(seed for seed in range(2, 5) if told(f"{seed}.png").negative_prompt == "rain")
    generate(model, "cat", "-n", "rain", "-s", str(seed), "-o", "alone.png")
    with Image.open(f"{seed}.png") as one, Image.open("alone.png") as other:
        difference = max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))
    assert difference <= 1  # batches round differently


@pytest.mark.parametrize("batch", ["1", "3"])
def test_the_texts_of_both_encoders_make_the_same_choices(batch: str) -> None:
    texts = ("{cat|dog|cow}", "-n", "{fog|rain}", "--prompt-2", "a __colors__ {cat|dog|cow}")
    given = [*texts, "--negative-prompt-2", "in {fog|rain}", "--wildcards", "wild"]
    result = generate(XL, *given, "--count", "3", "--batch-size", batch, "-o", "{seed}.png")
    assert result.exit_code == 0, result.output
    for seed in range(1, 4):
        found = told(f"{seed}.png")
        assert found.settings["Prompt 2"] == expand_wildcards("a __colors__ {cat|dog|cow}", seed, "wild")
        assert found.settings["Negative prompt 2"] == f"in {found.negative_prompt}"
        assert found.settings["Wildcard prompt 2"] == "a __colors__ {cat|dog|cow}"
        assert found.settings["Wildcard negative prompt 2"] == "in {fog|rain}"
    assert len({told(f"{seed}.png").settings["Prompt 2"] for seed in range(1, 4)}) > 1
    words = told("2.png")
    plain = ("--prompt-2", words.settings["Prompt 2"], "--negative-prompt-2", f"in {words.negative_prompt}")
    result = run("generate", words.prompt, "-n", words.negative_prompt, *plain, "-m", XL, *SEED_2)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.asarray(Image.open("plain.png")), np.asarray(Image.open("2.png")))


def test_json_has_the_second_prompts_of_each_image() -> None:
    texts = ("{cat|dog|cow}", "-n", "{fog|rain}", "--prompt-2", "a __colors__ {cat|dog|cow}")
    given = [*texts, "--negative-prompt-2", "in {fog|rain}", "--wildcards", "wild", "--count", "3"]
    about = json.loads(generate(XL, *given, "-o", "{seed}.png", "--json").stdout)
    assert about["prompts_2"] == [told(f"{seed}.png").settings["Prompt 2"] for seed in range(1, 4)]
    assert about["negative_prompts_2"] == [f"in {negative}" for negative in about["negative_prompts"]]
    assert about["settings"]["prompt_2"] == "a __colors__ {cat|dog|cow}"
    Path("p.jsonl").write_text('{"prompt": "a cat", "prompt_2": ""}\n{"prompt": "a dog"}\n')
    about = json.loads(generate(XL, "--prompts-file", "p.jsonl", "-o", "p{seed}.png", "--json").stdout)
    assert (about["prompts_2"], about["negative_prompts_2"]) == (["", None], [None, None])


def test_braces_that_were_chosen_stay_in_the_second_prompt() -> None:
    given = ("--prompt-syntax", "plain", "--prompt-2", "{cat|dog}", "-o", "plain.png")
    assert generate(XL, "a cat", *given).exit_code == 0
    again = run("generate", "--from", "plain.png", "-m", XL, "--prompt-syntax", "a1111", "-o", "again.png")
    assert again.exit_code == 0, again.output
    assert told("again.png").settings["Prompt 2"] == "{cat|dog}"


def test_an_image_is_made_again_from_what_was_chosen(model: str) -> None:
    generate(model, "a __colors__ cat", "--wildcards", "wild", "-o", "a.png")
    assert run("generate", "--from", "a.png", "-m", model, "-o", "b.png").exit_code == 0
    assert told("b.png").prompt == told("a.png").prompt
    with Image.open("a.png") as one, Image.open("b.png") as other:
        assert one.tobytes() == other.tobytes()


def test_prompts_files_and_plots_have_wildcards_too(model: str) -> None:
    Path("p.txt").write_text(
        '__colors__ cat\n{"prompt": "__colors__ dog", "negative_prompt": "__colors__"}\n'
    )
    result = generate(model, "--prompts-file", "p.txt", "--wildcards", "wild", "--json")
    about = json.loads(result.stdout)
    assert about["prompts"] == [
        expand_wildcards("__colors__ cat", 1, "wild"),
        expand_wildcards("__colors__ dog", 2, "wild"),
    ]
    assert about["negative_prompts"][0] == ""
    assert about["negative_prompts"][1] in ("red", "orange", "blue")
    plotted = run(
        *("plot", "__colors__ cat", "-m", model, "--steps", "1", "--wildcards", "wild", "-x", "seed=1-3"),
        *("--json", "-o", "plot.png"),
    )
    assert json.loads(plotted.stdout)["prompts"] == [
        expand_wildcards("__colors__ cat", seed, "wild") for seed in (1, 2, 3)
    ]


def test_what_is_missing_is_an_error_before_any_work(model: str) -> None:
    result = generate(model, "a __colors__ cat")
    assert result.exit_code == 2
    assert (
        "the prompt has the wildcard '__colors__': give the folder of its file with --wildcards"
        in result.stderr
    )
    assert "'nope' is not a folder" in generate(model, "a cat", "--wildcards", "nope").stderr
    Path("p.txt").write_text("a cat\n__colours__ dog\n")
    wrong = generate(model, "--prompts-file", "p.txt", "--wildcards", "wild")
    assert "p.txt, line 2: no file for the wildcard '__colours__' in 'wild'" in wrong.stderr
    assert "it has colors" in wrong.stderr
    assert not list(Path().glob("*.png"))


def test_plain_prompts_have_none(model: str) -> None:
    result = generate(model, "a __colors__ cat", "--prompt-syntax", "plain", "-o", "a.png")
    assert result.exit_code == 0
    assert told("a.png").prompt == "a __colors__ cat"


def test_captions_show_what_was_chosen() -> None:
    def labels(*prompts: str, **given: object) -> list[str]:
        return [job.label for job in plan(options(*prompts, **given))]

    assert labels("a {red|red} cat", count=2) == ["seed 1: red", "seed 2: red"]
    assert labels("a cat", count=2) == ["seed 1", "seed 2"]
    assert labels("a {red|red} cat", "a dog") == ["red: a red cat", "a dog"]
    assert labels("a {red|red} cat", "a dog", count=2)[:2] == ["1: red: a red cat", "2: red: a red cat"]
    (label,) = labels("a __colors__ cat")
    assert label in ("seed 1: red", "seed 1: orange", "seed 1: blue")
    jobs, _ = plan_plot(options("a {red|red} cat"), [parse_axis("steps=10-20:10")])
    assert [job.label for job in jobs] == ["steps 10, red", "steps 20, red"]


def test_comments_ask_for_no_file(model: str) -> None:
    result = generate(model, "a cat # __nothing__", "--prompt-comments", "-o", "a.png")
    assert result.exit_code == 0, result.output
    assert told("a.png").prompt == "a cat"
    assert "Wildcard prompt" not in told("a.png").settings


def test_users_are_told_once_of_the_tags_of_all_images(model: str) -> None:
    result = generate(model, "a cat <lora:x:0.8>", "--count", "3", "-o", "{seed}.png")
    assert result.stderr.count("'<lora:x:0.8>' is left out of the prompt") == 1
    assert told("2.png").prompt == "a cat <lora:x:0.8>"
    generate(model, "a cat ", "-o", "without.png")
    with Image.open("1.png") as one, Image.open("without.png") as other:
        assert one.tobytes() == other.tobytes()


def test_the_texts_of_an_image_are_complete(model: str) -> None:
    settings = {
        "Steps": "1",
        "Sampler": "Euler",
        "CFG scale": "7",
        "Seed": "1",
        "Size": "64x64",
        "RNG": "CPU",
    }
    text = str(Parameters(prompt="a {b|c} __x__", negative_prompt="{d|e}", settings=settings))
    Image.new("RGB", (8, 8)).save("said.png", **save_options("PNG", text))
    assert run("generate", "--from", "said.png", "-m", model, "-o", "a.png").exit_code == 0
    assert (told("a.png").prompt, told("a.png").negative_prompt) == ("a {b|c} __x__", "{d|e}")
    run("generate", "--from", "said.png", "-m", model, "-n", "{f|f}", "-o", "b.png")
    assert told("b.png").negative_prompt == "f"
