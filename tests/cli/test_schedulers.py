"""`sdrt schedulers`."""

from __future__ import annotations

import json

from click.testing import CliRunner

from sdrt.cli import main
from sdrt.schedulers import SAMPLERS, SPACINGS


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["schedulers", *arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_every_scheduler_is_a_line_and_every_spacing_is_named() -> None:
    headings, *lines = run().split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(SAMPLERS)
    column = headings.index("diffusers' class")
    assert [line[column:].split()[0] for line in lines] == [
        row.class_name or "-" for row in SAMPLERS.values()
    ]
    assert f"spacings: {', '.join(SPACINGS)}\n" in run()


def test_json() -> None:
    found = json.loads(run("--json"))
    assert found["spacings"] == list(SPACINGS)
    (tcd,) = (row for row in found["schedulers"] if row["name"] == "tcd")
    assert (tcd["order"], tcd["evaluations"], tcd["eta"], tcd["spacings"]) == (None, 1, None, [])
