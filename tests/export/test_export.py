"""A whole export: the folder, its manifest, its progress, and what is checked before any work."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import sdrt
from sdrt.errors import ExportError
from sdrt.model_folder.folder import Manifest
from sdrt_export import ProgressEvent, export_model
from sdrt_export.components import COMPONENTS
from tests.export.exports import files

GRAPHS = [
    f"{name}/{file}" for name in COMPONENTS for file in ("config.json", "model.onnx", "model.onnx_data")
]


TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")


STAGES = ["vae_decoder/stages.onnx", "vae_encoder/stages.onnx"]


OTHERS = [*(f"tokenizer/{name}" for name in TOKENIZER), "scheduler/scheduler_config.json", "model_index.json"]


def test_the_manifest_lists_every_file(sd1_export: Any) -> None:
    manifest = Manifest.read(sd1_export.folder)
    made = files(sd1_export.folder)
    assert sorted(made) == sorted([*GRAPHS, *STAGES, *OTHERS, "sdrt.json"])
    assert sorted(manifest.files) == sorted([*GRAPHS, *STAGES, *OTHERS])
    for name, record in manifest.files.items():
        assert record.size == len(made[name])
        assert record.sha256 == hashlib.sha256(made[name]).hexdigest()


def test_the_manifest_has_a_map_from_latents_to_colours(sd1_export: Any) -> None:
    manifest = Manifest.read(sd1_export.folder)
    matrix = np.array(manifest.components["vae_decoder"]["preview"])
    assert matrix.shape == (5, 3)
    assert np.isfinite(matrix).all()
    assert np.ptp(matrix) > 0


def test_the_manifest_says_what_was_made_from_what(sd1_export: Any) -> None:
    manifest = Manifest.read(sd1_export.folder)
    assert (manifest.target, manifest.dtype, manifest.exporter) == ("cpu", "float32", "sdrt")
    assert manifest.source == {"id": "sd1", "revision": None}
    for package in ("torch", "diffusers", "transformers", "onnx", "numpy", "tokenizers", "sdrt"):
        assert manifest.versions[package] == importlib.metadata.version(package)
    assert manifest.versions["onnxruntime"] == onnxruntime.__version__
    for name in COMPONENTS:
        path = sd1_export.folder / name / "model.onnx"
        assert ir.load(path).opset_imports[""] == manifest.opset


def test_no_trace_of_the_machine(sd1_export: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    secrets = [
        str(tmp_path_factory.getbasetemp()),
        str(Path.home()) + "/",
        sys.prefix,
        "site-packages",
        ".py",
    ]
    for name, data in files(sd1_export.folder).items():
        assert [secret for secret in secrets if secret.encode() in data] == [], name


def test_configs_keep_their_meaning(sd1_export: Any) -> None:
    for name, component in COMPONENTS.items():
        theirs = json.loads((sd1_export.source / component.checkpoint / "config.json").read_text())
        ours = json.loads((sd1_export.folder / name / "config.json").read_text())
        assert "_name_or_path" not in ours
        # transformers calls the dtype of a config differently over its versions; our graphs are float32.
        ignored = {"_name_or_path", "dtype", "torch_dtype"}
        assert {key: ours.get(key) for key in theirs if key not in ignored} == {
            key: value for key, value in theirs.items() if key not in ignored
        }


def test_the_scheduler_config_is_copied(sd1_export: Any) -> None:
    theirs, ours = (
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        for folder in (sd1_export.source, sd1_export.folder)
    )
    assert ours == theirs
    scheduler = diffusers.PNDMScheduler.from_pretrained(sd1_export.folder / "scheduler")
    assert scheduler.config.steps_offset == 1


def test_progress_of_every_component(sd1_export: Any) -> None:
    stages = ["load", "export", "write", "check", "done"]
    # All graphs are built before the first is written, so only each component's own order is fixed.
    for name in COMPONENTS:
        assert [event.stage for event in sd1_export.events if event.component == name] == stages
    assert (sd1_export.events[-1].component, sd1_export.events[-1].stage) == ("", "done")


@pytest.mark.full
def test_a_checkout_that_is_not_installed_exports(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has it on PYTHONPATH alone; other versions are still those of what is installed."""

    def version(name: str) -> str:
        if name == "sdrt":
            raise PackageNotFoundError(name)
        return importlib.metadata.version(name)

    monkeypatch.setattr("sdrt_export.plan.version", version)
    manifest = export_model(None, tmp_path / "model", architecture="tiny", random_weights=0)
    assert manifest.versions["sdrt"] == sdrt.__version__
    assert manifest.versions["onnx"] == importlib.metadata.version("onnx")


def test_a_version_that_nobody_knows_is_missed_before_any_work(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    events: list[ProgressEvent] = []
    monkeypatch.setattr("sdrt_export.plan.version", version)
    with pytest.raises(ExportError, match=r"onnx is not installed as a distribution.*pip"):
        export_model(checkpoint("sd1"), tmp_path / "model", reporter=events.append)
    assert not events


def test_a_broken_vocabulary_is_refused_before_any_work(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint")
    (source / "tokenizer" / "vocab.json").write_text('{"a": "b"}')
    events: list[ProgressEvent] = []
    with pytest.raises(ExportError, match="not a CLIP tokenizer"):
        export_model(source, tmp_path / "model", reporter=events.append)
    assert not events


def weights(graph: ir.Graph) -> list[np.ndarray]:
    """The initializers in the order in which the nodes of ``graph`` read them."""
    values = (value for node in graph for value in node.inputs if value is not None)
    return [value.const_value.numpy() for value in values if value.is_initializer()]


@pytest.mark.full
def test_the_tiny_model_of_the_tests_is_a_fresh_export(tmp_path: Path) -> None:
    export_model(None, tmp_path / "model", architecture="tiny", random_weights=0)
    kept_folder = Path(__file__).parents[1] / "models" / "tiny"
    assert files(kept_folder).keys() == files(tmp_path / "model").keys()
    for name in COMPONENTS:
        fresh, kept = (
            ir.load(root / name / "model.onnx").graph for root in (tmp_path / "model", kept_folder)
        )
        assert [node.op_type for node in fresh] == [node.op_type for node in kept]
        # The kept weights are torch's; ours round in float32, 5e-7 of a standard deviation apart.
        for one, other in zip(weights(fresh), weights(kept), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=5e-7 * np.abs(other).max(), err_msg=name)
    for name in ("tokenizer/tokenizer.json", "tokenizer/vocab.json", "scheduler/scheduler_config.json"):
        assert (kept_folder / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


@pytest.mark.full
def test_exporting_leaves_nothing_in_the_home(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    }
    command = [sys.executable, "-m", "sdrt", "export", checkpoint("sd1"), "-o", tmp_path / "model"]
    subprocess.run(command, env=clean | {"HOME": str(tmp_path / "home")}, check=True, capture_output=True)
    left = [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [name for name in left if "onnx" in name.lower() or "device" in name.lower()], left
