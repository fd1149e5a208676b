"""`python -m benchmarks`: every command has its module, and a chart comes out of the records that are kept."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import ENTRIES, main
from benchmarks.chart import RECORD, draw


@pytest.mark.parametrize("name", [*ENTRIES])
def test_every_command_has_a_module(name: str) -> None:
    assert importlib.util.find_spec(f"benchmarks.{ENTRIES[name].module}") is not None


def test_commands_are_listed_without_importing_them() -> None:
    script = (
        "import sys\nfrom benchmarks.__main__ import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name in ('numpy', 'torch', 'onnx', 'sdrt', 'benchmarks.peers')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert all(name in done.stdout for name in ENTRIES)
    assert done.stdout.endswith("[]\n")


def test_arguments_reach_the_command_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("benchmarks.peers.main", lambda arguments: given.append([*arguments]))
    assert CliRunner().invoke(main, ["prepare", "--help", "--", "--rounds", "2"]).exit_code == 0
    assert given == [["--prepare", "--help", "--", "--rounds", "2"]]


def test_a_chart_is_drawn_of_a_record(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(json.loads(RECORD.read_text(encoding="utf-8")), tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="the record has no nothing"):
        draw(json.loads(RECORD.read_text(encoding="utf-8")), tmp_path / "peers.png", ["nothing"])
    with pytest.raises(SystemExit, match="expected a record of `run` or `peers`"):
        draw({}, tmp_path / "peers.png")
