"""Texts from files are made safe where they are printed, and nowhere else."""

from __future__ import annotations

import ast
import io
import unicodedata
import warnings
from pathlib import Path

import pytest

import sdrt
from sdrt.common.notices import Notices, SdrtWarning
from sdrt.common.progress import Display
from sdrt.common.visible import visible
from tests.hostile import HOSTILE, assert_safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Grüße, 日本 \N{ROCKET} [red]", "Grüße, 日本 \N{ROCKET} [red]"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m\x7f\0", r"\x9b31m\x7f\x00"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202eright to left\u2066\u200b\ufeff", r"\u202eright to left\u2066\u200b\ufeff"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("half\udcff", r"half\udcff"),
        ("ideographic\u3000space", "ideographic\u3000space"),
    ],
)
def test_what_a_terminal_would_obey_becomes_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_lines_may_stay() -> None:
    assert visible("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


def test_no_character_that_a_terminal_obeys_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = {unicodedata.category(letter) for letter in visible(every)}
    assert left.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


def test_warnings_of_a_program_are_safe() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Notices().warn(HOSTILE)
    assert_safe(str(caught[0].message))
    assert caught[0].category is SdrtWarning


def test_notices_are_safe_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Notices().inform(HOSTILE)
    assert_safe(capsys.readouterr().err)


def test_notices_above_a_live_display_are_safe_and_no_markup() -> None:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    stream = io.StringIO()
    display = Display()
    display.quiet = False
    console = Console(file=stream, force_terminal=True, width=500)
    with display._drawing(Progress(TextColumn("x"), console=console)):
        display.notice(HOSTILE)
    assert visible(HOSTILE) in stream.getvalue()


def test_parts_of_a_live_board_are_safe() -> None:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from sdrt.common.progress import _LiveBoard

    stream = io.StringIO()
    columns = (
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[stage]}", markup=False),
    )
    progress = Progress(*columns, console=Console(file=stream, force_terminal=True, width=1000))
    _LiveBoard(progress).show(HOSTILE, "exporting", HOSTILE)
    progress.stop()
    assert stream.getvalue().count(visible(HOSTILE)) >= 2
    assert HOSTILE not in stream.getvalue()


def test_one_module_of_the_command_prints() -> None:
    """`click.echo` and `print` are called by the exits that make texts visible, and for data."""
    root = Path(sdrt.__file__).parent
    printing: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "click.echo",
                "click.secho",
                "print",
            ):
                name = path.relative_to(root).as_posix()
                printing.setdefault(name, set()).add(ast.unparse(node.args[0]))
    assert set(printing) == {
        "__main__.py",  # a constant
        "benchmark/worker.py",  # JSON
        "cli/__init__.py",  # the version and the help
        "cli/echo.py",
        "cli/exit_codes.py",  # a traceback
        "cli/generate/terminal.py",  # names of files, as data
        "common/progress.py",
        "supervised.py",  # the limit, a number
    }
