"""Options and commands of other programs: the error says what to write instead."""

from __future__ import annotations

import re

import click
import pytest

from sdrt.cli import main
from sdrt.foreign.command import COMMANDS, OPTIONS
from tests.cli.commands import run


def options_of(command: str) -> dict[str, click.Option]:
    with click.Context(main) as context:
        found = main.get_command(context, command)
    assert found is not None
    return {
        spelling: one
        for one in found.params
        if isinstance(one, click.Option)
        for spelling in (*one.opts, *one.secondary_opts)
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["generate", "x", "--loras", "y"],
            "no option --loras (a LoRA): write --lora FILE:0.8",
        ),
        (["benchmark", "x", "--lora=y"], "no option --lora (a LoRA): sdrt generate and sdrt plot take LoRAs"),
        (["generate", "x", "--no-lora"], "no option --no-lora (a LoRA): write --lora"),
        (["generate", "x", "--LoRA_path", "1"], "(a LoRA): write --lora"),
        (["plot", "x", "--controlnet-model", "y"], "give the network with --controlnet"),
        (["generate", "x", "--cuda"], "write --provider cuda"),
        (["doctor", "--cuda"], "write --provider cuda"),
        (["generate", "x", "--fp16"], "sdrt export CHECKPOINT --dtype fp16"),
        (["export", "x", "-o", "y", "--fp16"], "write --dtype fp16"),
        (["generate", "x", "--model-id", "y"], "write --model (-m)"),
        (["generate", "x", "--negative", "y"], "write --negative-prompt (-n)"),
        (["generate", "x", "--cfg", "3"], "write --guidance-scale"),
        (["generate", "x", "--batch", "3"], "write --batch-size (-b)"),
        (["generate", "--prompt", "x"], "write the prompt without an option, in quotes"),
        (["plot", "x", "--num_images", "3"], "vary the seed: -x seed=1,2,3"),
        (
            ["generate", "x", "--guid", "3"],
            "did you mean --guidance-scale or --guidance-rescale or --guidance-interval?",
        ),
        (["generate", "x", "--hieght", "3"], "did you mean --height?"),
        (["generate", "x", "--colour"], "error: no option --colour; see `sdrt generate --help`"),
        (["--seed", "3"], "write the command first, as in sdrt generate … --seed"),
        (["--lora", "3"], "write the command first, as in sdrt generate … --lora"),
        (["webui"], "unknown command 'webui' (a server); write sdrt serve, which makes images over HTTP"),
        (["txt2img", "a cat"], 'write sdrt generate "a red circle"'),
        (["img2img"], "-i in.png --strength 0.6"),
        (["upscale"], "--hires 2"),
        (["genrate"], "unknown command 'genrate'; did you mean generate?"),
        (["a red circle"], 'to make an image of it, write sdrt generate "…"'),
        (["help", "genrate"], "did you mean generate?"),
        (["help", "server"], "write sdrt serve"),
    ],
    ids=" ".join,
)
def test_an_error_says_what_there_is(arguments: list[str], line: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert "--force" not in result.stderr


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_in_the_table(command: str) -> None:
    """What a row names exists, and what it is about does not, unless the row says so."""
    known = options_of(command)
    others = set().union(*(options_of(other) for other in ("export", "generate")))
    for word in OPTIONS[command]:
        if "*" not in word.name:
            assert (f"--{word.name}" in known) == word.works, word
        own, _, elsewhere = word.ours.partition("sdrt export")
        assert set(re.findall(r"--[a-z][a-z-]+", own)) <= set(known), word
        assert set(re.findall(r"--[a-z][a-z-]+", elsewhere)) <= others, word
    names = [word.name for word in OPTIONS[command]]
    assert len(names) == len(set(names))


def test_the_commands_in_the_table() -> None:
    names = [word.name for word in COMMANDS]
    assert len(names) == len(set(names))
    with click.Context(main) as context:
        known = main.list_commands(context)
        for word in COMMANDS:
            assert main.get_command(context, word.name) is None
            for command, options in re.findall(r"sdrt (\w+) ((?:\S+ ?)*)", word.ours):
                if command not in ("has",):
                    assert command in known, word
                    assert set(re.findall(r"--[a-z-]+", options)) <= set(options_of(command)), word


@pytest.mark.parametrize(
    ("alias", "name"),
    [("--sampler", "--scheduler"), ("--device", "--provider"), ("--cfg-scale", "--guidance-scale")],
)
def test_other_spellings(alias: str, name: str) -> None:
    for command in ("generate", "plot", "benchmark"):
        known = options_of(command)
        assert known[alias] is known[name]
    assert "unknown scheduler 'nope'" in run("generate", "x", "--sampler", "nope").stderr
    assert "unknown provider 'nope'" in run("generate", "x", "--device", "nope").stderr


def test_help() -> None:
    assert run("help").stdout == run("--help").stdout
    for command in ("generate", "export", "completion", "help"):
        assert run("help", command).stdout == run(command, "--help").stdout
    assert run("help", "generate").stdout.startswith("Usage: sdrt generate [OPTIONS] PROMPT...")
