"""The command as a whole: help, imports, exit codes, error lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import click
import pytest

import sdrt
from sdrt.cli import main
from sdrt.cli.exit_codes import describe
from sdrt.errors import OutOfMemoryError, ProviderError, UnsupportedModelError
from tests.cli.commands import run

COMMANDS = ("generate", "export", "benchmark", "info", "doctor")
HEAVY = ("numpy", "PIL", "onnxruntime", "rich", "huggingface_hub", "tokenizers", "torch", "sdrt_export")


def loaded_after(arguments: list[str]) -> set[str]:
    """Top-level modules in a fresh interpreter after `sdrt ARGUMENTS`."""
    code = (
        "import sys, json, io\n"
        "from sdrt.cli import main\n"
        "out, sys.stdout = sys.stdout, io.StringIO()\n"
        f"try: main({arguments!r}, prog_name='sdrt')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=out)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "-h"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_after(arguments).isdisjoint(HEAVY)


def test_help_lists_commands_and_exit_codes() -> None:
    text = run("--help").stdout
    for word in (
        *COMMANDS,
        "0    done",
        "2    usage",
        "3    model",
        "4    provider",
        "5    out",
        "130  inter",
    ):
        assert word in text
    assert run().stdout == text


def test_version() -> None:
    assert run("--version").stdout == f"sdrt {sdrt.__version__}\n"


def options() -> list[tuple[str, str]]:
    with click.Context(main) as context:
        return [
            (name, option)
            for name in COMMANDS
            for parameter in main.get_command(context, name).params  # type: ignore[union-attr]
            for option in parameter.opts
            if "-" in option.lstrip("-")
        ]


@pytest.mark.parametrize(("command", "option"), options())
def test_every_option_is_also_spelt_with_underscores(command: str, option: str) -> None:
    spelt = "--" + option[2:].replace("-", "_")
    assert run(command, spelt, "1", "--help").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["paint"],
            "unknown command 'paint'; the commands are generate, batch, serve, plot, export, bundle, tune, models, "
            "benchmark, schedulers, info, doctor, completion, help",
        ),
        (["generate"], "Missing argument 'PROMPT...'; see `sdrt generate --help`"),
        (["generate", "p", "--stps", "3"], "--steps"),
        (["generate", "p", "--steps", "three"], "'three' is not a valid integer"),
        (["generate", "p", "--count", "0"], "--count"),
        (["export", "folder"], "Missing option '-o'"),
        (["export", "-o", "x"], "expected a SOURCE"),
        (["export", "folder", "-o", "x", "--random-weights", "1"], "expected a SOURCE"),
        (["export", "folder", "-o", "x", "--target", "gpu"], "'cpu', 'cuda', 'portable'"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], line: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsupportedModelError("m"), 3),
        (ProviderError("m"), 4),
        (OutOfMemoryError("m"), 5),
        (MemoryError(), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("m"), 1),
        (PermissionError(13, "Permission denied", "file"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sdrt.cli.models.info.model_info", fail)
    result = run("info", "folder")
    assert result.exit_code == code
    assert result.stderr.strip().startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "Traceback" in run("info", "folder", "--debug").stderr


def test_a_defect_says_how_to_report_it() -> None:
    code, line = describe(ZeroDivisionError("two\nlines"))
    assert code == 1
    assert line.startswith("internal error: ZeroDivisionError: two lines; run it again with --debug")


def test_a_reader_that_leaves_is_no_error() -> None:
    assert describe(BrokenPipeError(32, "Broken pipe")) == (1, "")


def test_missing_export_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sdrt_export"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = run("export", "folder", "-o", "x")
    assert result.exit_code == 3
    line = r"error: exporting needs onnx, which is not installed; run: pip install .*\[export\]'\n"
    assert re.fullmatch(line, result.stderr)


@pytest.mark.parametrize("command", ["generate", "plot"])
def test_help_shows_every_option_once_and_the_usual_ones_first(command: str) -> None:
    text = run(command, "--help").stdout
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[0] == "The options that most people need:"
    assert headings[-1] == "Output and messages:"
    first = text[text.index(headings[0]) : text.index(headings[1])]
    for option in ("--model", "--negative-prompt", "--steps", "--guidance-scale", "--width", "--height"):
        assert option in first
    for option in ("--seed", "--scheduler", "--image", "--output"):
        assert option in first
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    assert len(options) == len(set(options)) >= 40
