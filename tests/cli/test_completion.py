"""Shell completion: what completes to what, and once in a real bash."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from sdrt.cli import main
from sdrt.cli.completion import Bash

pytestmark = pytest.mark.usefixtures("folder")


def completed(*words: str) -> list[str]:
    """What the last of `words` completes to; files and folders as <file> and <dir>."""
    *arguments, incomplete = words
    items = ShellComplete(main, {}, "sdrt", "_SDRT_COMPLETE").get_completions(arguments, incomplete)
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]


def test_commands_and_options() -> None:
    assert completed("") == [
        *(
            "generate",
            "batch",
            "serve",
            "plot",
            "export",
            "bundle",
            "tune",
            "models",
            "benchmark",
            "schedulers",
        ),
        *("info", "doctor", "completion", "help"),
    ]
    assert completed("ge") == ["generate"]
    assert "--scheduler" in completed("generate", "--sch")
    assert {"--seed", "--steps", "--strength"} <= set(completed("generate", "--s"))
    assert completed("help", "do") == ["doctor"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("option", ["--scheduler", "--sampler"])
def test_schedulers_by_every_name(option: str) -> None:
    assert {"euler", "euler_a", "DPM++ 2M", "Euler a"} <= set(completed("generate", "x", option, ""))
    assert completed("generate", "x", option, "uni") == ["unipc", "UniPC", "UniPCMultistepScheduler"]
    assert {"DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M Karras"} <= set(completed("generate", option, "DPM++ 2M"))
    assert completed("generate", option, "dpm++ 2m kar") == ["DPM++ 2M Karras"]
    assert completed("generate", option, "EulerD") == ["EulerDiscreteScheduler"]
    assert completed("generate", option, "mine/sched") == ["<file>"]


def test_choices_spacings_and_providers() -> None:
    assert completed("generate", "--prompt-syntax", "") == ["a1111", "compel", "plain"]
    assert completed("generate", "--spacing", "ka") == ["karras"]
    assert completed("generate", "--provider", "cu") == ["cuda"]
    assert completed("generate", "--device", "cuda:") == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert completed("export", "--target", "p") == ["portable"]


def test_models(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    (hub / "models--someone--some--model").mkdir(parents=True)
    (hub / "models--someone--odd\x1b[31m\nname").mkdir()
    for command in (["generate", "x", "-m"], ["plot", "x", "--model"], ["doctor", "-m"], ["benchmark", "-m"]):
        assert completed(*command, "") == ["shapes", "someone/some--model", "<file>"]
        assert completed(*command, "some") == ["someone/some--model", "<file>"]
    assert completed("info", "sha") == ["shapes", "<file>"]
    assert completed("export", "ch") == ["<file>"]
    shutil.rmtree(hub)
    assert completed("generate", "-m", "") == ["shapes", "<file>"]


def test_files() -> None:
    for option in ("--image", "--mask", "--embedding", "--prompts-file", "--from", "-o", "--preview-file"):
        assert completed("generate", "x", option, "pic") == ["<file>"]
    assert completed("benchmark", "--compare", "a.json", "b") == ["<file>"]
    assert completed("generate", "x", "--wildcards", "w") == ["<dir>"]


def test_axes() -> None:
    assert completed("plot", "x", "-x", "st") == ["steps=", "strength="]
    assert completed("plot", "x", "-y", "scheduler=euler,DPM++ 2M SDE Kar") == [
        "scheduler=euler,DPM++ 2M SDE Karras"
    ]
    assert completed("plot", "x", "-z", "prompt_syntax=a1111,c") == ["prompt_syntax=a1111,compel"]
    assert completed("plot", "x", "-x", "steps=1") == []
    assert completed("plot", "x", "-x", "nothing=1") == []


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("sdrt gen", "gen", ["generate"]),
        ("sdrt ", "", ["generate"]),
        ("sdrt generate x --scheduler eul", "eul", ["euler", "euler_a"]),
        # bash breaks words at these, and replaces only what follows.
        ("sdrt generate x --scheduler=eul", "eul", ["euler", "euler_a"]),
        ("sdrt generate x --scheduler=", "=", ["euler"]),
        ("sdrt generate x --device cuda:1", "1", ["1"]),
        ("sdrt generate x --device cuda:", ":", ["0", "1", "2", "3"]),
        ("sdrt plot x -x scheduler=eul", "eul", ["euler", "euler_a"]),
        ('sdrt plot x -x "scheduler=eul', '"scheduler=eul', ["scheduler=euler"]),
        ('sdrt generate x --scheduler "DPM++ 2M Ka', '"DPM++ 2M Ka', ["DPM++ 2M Karras"]),
        ("sdrt generate x --scheduler 'DPM++ 2M ", "'DPM++ 2M ", ["DPM++ 2M SDE", "DPM++ 2M Karras"]),
        ("sdrt generate x --scheduler DPM++\\ 2M\\ Ka", "DPM++\\ 2M\\ Ka", ["DPM++ 2M Karras"]),
        ("sdrt generate x --scheduler DPM++\\ 2M\\ ", "DPM++\\ 2M\\ ", ["DPM++ 2M SDE", "DPM++ 2M Karras"]),
        ('sdrt generate "a red circle" --spacing k', "k", ["karras"]),
        ('sdrt generate "a red circle" ', "", []),
        ("sdrt nothing x", "x", []),
    ],
)
def test_lines_of_bash(line: str, word: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_WORD", word)
    shell = Bash(main, {}, "sdrt", "_SDRT_COMPLETE")
    found = [item.value for item in shell.get_completions(*shell.get_completion_args())]
    assert [one for one in expected if one not in found] == []
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell], prog_name="sdrt").stdout
    assert f"_SDRT_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_lists_the_known_ones() -> None:
    result = CliRunner().invoke(main, ["completion", "tcsh"], prog_name="sdrt")
    assert (result.exit_code, "'bash', 'zsh', 'fish'" in result.stderr) == (2, True)


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Type keys into an interactive bash that has the completion, then run the line; returns the arguments it got."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    program = tmp_path / "bin" / "sdrt"
    program.parent.mkdir()
    # Completion asks the real program. Any other call prints its arguments.
    program.write_text(
        f'#!/bin/bash\n[[ -n $_SDRT_COMPLETE || $1 == completion ]] && exec {sys.executable} -m sdrt "$@"\n'
        "printf 'got'; printf '<%s>' \"$@\"; printf 'end\\n'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    pid, terminal = pty.fork()
    if pid == 0:
        environment = os.environ | {"PATH": path, "PS1": "$ ", "INPUTRC": "/dev/null", "TERM": "dumb"}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)

    def read(until: str, seconds: float = 60) -> str:
        said, end = "", time.monotonic() + seconds
        while not re.search(until, said):
            ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"bash did not answer: {said!r}"
            said += os.read(terminal, 4096).decode(errors="replace")
        return said

    def run(keys: str) -> str:
        # bash reads the key that ends the line after it has completed.
        os.write(terminal, keys.encode() + b"\r")
        return re.findall(r"got(<.*?>)end", read(r"got<.*>end"))[-1]

    os.write(terminal, b'eval "$(sdrt completion bash)"; echo rea""dy\r')
    read("ready")
    yield run
    os.write(terminal, b"\x15exit\r")
    os.close(terminal)
    os.waitpid(pid, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_bash_itself(typed: Callable[[str], str]) -> None:
    Path("an image.png").touch()
    Path("models").mkdir()
    assert typed("sdrt gen\t x --sched\teuler_\t") == "<generate><x><--scheduler><euler_a>"
    assert (
        typed("sdrt generate x --scheduler DPM++\\ 2M\\ Kar\t")
        == "<generate><x><--scheduler><DPM++ 2M Karras>"
    )
    assert (
        typed('sdrt generate x --scheduler "DPM++ 2M Kar\t') == "<generate><x><--scheduler><DPM++ 2M Karras>"
    )
    assert (
        typed("sdrt generate x --scheduler=unipcm\t") == "<generate><x><--scheduler=UniPCMultistepScheduler>"
    )
    assert typed("sdrt generate x -i a\t") == "<generate><x><-i><an image.png>"
    assert typed("sdrt generate x -m sha\t") == "<generate><x><-m><shapes>"
    assert typed("sdrt generate x -m mod\t") == "<generate><x><-m><models/>"
    assert typed("sdrt plot x -x hires_up\tlan\t") == "<plot><x><-x><hires_upscaler=lanczos>"
    assert typed("sdrt generate x --spacing=\tkar\t") == "<generate><x><--spacing=karras>"
    assert typed("sdrt generate x --device cuda:\t1\t") == "<generate><x><--device><cuda:1>"
