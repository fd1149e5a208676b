"""An export that is interrupted, killed or wrong: only the old model is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdrt.cli import main as cli_main
from sdrt.errors import ExportError
from sdrt_export import TARGETS, export_model
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.values import Value
from sdrt_export.verify import parity
from tests.export.exports import files


def _slightly_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU target with an activation that is wrong by half a thousandth."""
    row = TARGETS["cpu"]

    class Wrong(FusedLayers):
        def quick_gelu(self, x: Value, alpha: float = 1.702) -> Value:
            return self.multiply(super().quick_gelu(x, alpha), 1.0005)

    wrong = replace(row, layers=Wrong)
    monkeypatch.setitem(TARGETS, "cpu", wrong)  # type: ignore[arg-type]
    monkeypatch.setattr("sdrt_export.plan.resolve_target", lambda name, dtype: wrong)


def test_a_graph_that_differs_from_torch_is_not_kept(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slightly_off(tmp_path, monkeypatch)
    out = tmp_path / "out" / "model"
    out.mkdir(parents=True)
    (out / "model_index.json").write_text("old")
    with pytest.raises(ExportError, match=r": .* differs from torch by .*the limit for fp32"):
        export_model(checkpoint("sd1"), out, verify=True, force=True)
    assert files(out.parent) == {"model/model_index.json": b"old"}


def end_while_comparing(checkpoint: Path, out: Path, sent: signal.Signals) -> int:
    """Export over an old model in another process, send it a signal on the way; its exit code."""
    out.mkdir(parents=True)
    (out / "model_index.json").write_text("old")
    command = [sys.executable, "-m", "sdrt", "export", checkpoint, "-o", out, "--force", "--verify"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "comparing with torch" in line:
                process.send_signal(sent)
                break
        process.stdout.read()
    return process.returncode


@pytest.mark.full
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_only_the_old_model(
    checkpoint: Callable[[str], Path], tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    out = tmp_path / "out" / "model"
    assert end_while_comparing(checkpoint("sd1"), out, sent) == code
    assert files(out.parent) == {"model/model_index.json": b"old"}


def test_an_interruption_that_a_library_swallows_still_ends_the_command(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parity.reference

    def swallowing(*args: Any, **options: Any) -> Any:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return run(*args, **options)

    monkeypatch.setattr(parity, "reference", swallowing)
    with pytest.raises(SystemExit) as exit_:
        cli_main(["export", str(checkpoint("sd1")), "-o", str(tmp_path / "model"), "--verify"])
    assert exit_.value.code == 130
    assert not (tmp_path / "model").exists()


def test_a_killed_command_leaves_the_old_model(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "model"
    assert end_while_comparing(checkpoint("sd1"), out, signal.SIGKILL) == -signal.SIGKILL
    left = files(out.parent)
    assert left.pop("model/model_index.json") == b"old"
    # It was killed on the way, a graph was written; the next run, though it fails, clears that up.
    assert any(name.endswith("/model.onnx") for name in left)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(ExportError):
        export_model(checkpoint("sd1"), out, force=True)
    assert files(out.parent) == {"model/model_index.json": b"old"}
