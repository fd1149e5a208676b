"""Options of made-up settings: every kind of row gives its value to the command."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from sdrt.cli.generate.options import setting_options
from sdrt.request.setting import Option, Setting

ROWS = (
    Setting(name="off", default=False, kind=bool, option=Option(("--on",))),
    Setting(name="on", default=True, kind=bool, option=Option(("--no-on",))),
    Setting(name="pick", default="a", kind=str, choices=("a", "b"), option=Option(("--pick",))),
    Setting(name="many", kind=int, max_items=3, option=Option(("--many",))),
    Setting(name="share", kind=float, option=Option(("--share", "-z"))),
    Setting(name="hidden", default=1, kind=int),
)


def values(*arguments: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command()
    def command(**given: Any) -> None:
        seen.update(given)

    made: Any = command
    for option in setting_options(ROWS):
        made = option(made)
    result = CliRunner().invoke(made, arguments)
    assert result.exit_code == 0, result.output
    return seen


def test_without_options_the_defaults_hold() -> None:
    assert values() == {"off": False, "on": True, "pick": "a", "many": None, "share": None}


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("--on",), "off", True),
        (("--no-on",), "on", False),
        (("--pick", "b"), "pick", "b"),
        (("--many", "3,2"), "many", (3, 2)),
        (("-z", "0.5"), "share", 0.5),
    ],
)
def test_an_option_sets_its_setting(arguments: tuple[str, ...], name: str, value: object) -> None:
    assert values(*arguments)[name] == value


def test_files_may_use_every_name_that_means_the_same() -> None:
    names = {row.name: row.names for row in ROWS}
    assert names["off"] == ("off", "on")
    assert names["on"] == ("on",)
    assert names["hidden"] == ()
