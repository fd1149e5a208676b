"""The documents' commands, followed from top to bottom in one folder, as someone new would."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from sdrt.cli import main

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```(?:sh|console)\n(.*?)```", re.DOTALL)
_IN_TABLE = re.compile(r"\| `(sdrt [^`]+)` \|")
# What someone new does not have yet: a checkpoint, and a model of another kind than the embedded one.
_NOT_THERE = re.compile(
    r"CHECKPOINT|MODEL|FILE|model/|pix2pix/|x4/|sdxl|theirs|sdrt (?:export|benchmark|doctor)| -W 2048"
)


def _commands(document: str) -> Iterator[str]:
    """The sdrt commands of a document in its order, without those that need something else."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = [(block.start(), block[1]) for block in _BLOCK.finditer(text)]
    found += [(row.start(), row[1]) for row in _IN_TABLE.finditer(text)]
    for _, block in sorted(found):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").rpartition(" && ")[2]
            if command.startswith(("sdrt generate", "sdrt plot", "sdrt info")) and not _NOT_THERE.search(
                command
            ):
                yield command


@pytest.mark.parametrize("documents", [("README.md", "docs/generate.md")])
def test_each_command_works_after_those_before_it(
    documents: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The commands name a file of the checkout, in which they are run.
    adapters = Path("models/sdrt_models/shapes/adapters")
    shutil.copytree(ROOT / adapters, adapters)
    # The images that someone brings along.
    Image.new("RGB", (128, 128), "gray").save("in.png")
    Image.new("L", (128, 128), 255).save("mask.png")
    commands = [command for document in documents for command in _commands(document)]
    assert len(commands) > 12
    for command in commands:
        program, name, *arguments = shlex.split(command)
        quick = [] if name == "info" else ["--quiet"]
        if name == "generate":
            quick += ["--steps", "2"]
        result = CliRunner().invoke(main, [name, *arguments, *quick])
        assert (program, result.exit_code) == ("sdrt", 0), f"{command}: {result.stderr}"
