"""Exports by optimum."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from sdrt.errors import ExportError
from sdrt.model_folder.folder import Manifest
from sdrt_export import export_model
from sdrt_export.components import COMPONENTS
from tests.export.exports import files


def test_optimums_exporter_is_checked_too(optimum_export: Path) -> None:
    manifest = Manifest.read(optimum_export)
    assert (manifest.exporter, manifest.target) == ("optimum", "portable")
    made = files(optimum_export)
    assert sorted(manifest.files) == sorted(made.keys() - {"sdrt.json"})
    assert {name for name in made if name.endswith(".onnx")} == {f"{name}/model.onnx" for name in COMPONENTS}
    for name in COMPONENTS:
        rows = manifest.components[name]["parity"]
        assert len(rows) == 2
        assert all(row["relative_error"] < 1e-4 for row in rows)
        model = ir.load(optimum_export / name / "model.onnx")
        assert {node.domain for node in model.graph.all_nodes()} <= {"", "ai.onnx"}
    assert "tokenizer/tokenizer.json" in made


def test_optimum_sees_only_what_was_checked(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """A safety checker that was not downloaded, a class from nowhere, a pickle: none of them is looked at."""
    source = shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint")
    index = json.loads((source / "model_index.json").read_text(encoding="utf-8"))
    index |= {"safety_checker": ["no_such_library", "Evil"], "scheduler": ["diffusers", "Evil"]}
    (source / "model_index.json").write_text(json.dumps(index))
    (source / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"no pickle")
    manifest = export_model(source, tmp_path / "model", target="portable", exporter="optimum")
    assert set(manifest.components) == set(COMPONENTS)
    assert not any(path.name.startswith(".") for path in (tmp_path / "model").rglob("*"))


def test_what_optimum_cannot_export_is_an_export_error(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("no config for it")

    monkeypatch.setattr("optimum.exporters.onnx.main_export", fail)
    with pytest.raises(ExportError, match="optimum cannot export this checkpoint: 'no config for it'"):
        export_model(checkpoint("sd1"), tmp_path / "model", target="portable", exporter="optimum")
    assert not list(tmp_path.iterdir())
