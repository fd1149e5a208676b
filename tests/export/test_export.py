"""A whole export: the folder, its manifest, its progress, and what happens when it goes wrong on the way."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import diffusers
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import sdrt
from sdrt.cli import main as cli_main
from sdrt.errors import (
    ComponentError,
    ExportError,
    ModelNotFoundError,
    OutOfMemoryError,
    ProviderError,
    SdrtError,
)
from sdrt.model_folder.folder import Manifest
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.tensor_spec import TensorSpec
from sdrt_export import TARGETS, ProgressEvent, export_model
from sdrt_export.components import COMPONENTS
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.values import Value
from sdrt_export.verify import parity

GRAPHS = [
    f"{name}/{file}" for name in COMPONENTS for file in ("config.json", "model.onnx", "model.onnx_data")
]
TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
STAGES = ["vae_decoder/stages.onnx", "vae_encoder/stages.onnx"]
OTHERS = [*(f"tokenizer/{name}" for name in TOKENIZER), "scheduler/scheduler_config.json", "model_index.json"]

INPUTS = {
    "text_encoder": {"input_ids", "added_token_embeddings", "eos_index"},
    "unet": {"sample", "timestep", "encoder_hidden_states"},
    "vae_encoder": {"sample"},
    "vae_decoder": {"latent_sample"},
}


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


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


@pytest.mark.parametrize("name", COMPONENTS)
def test_parity_is_recorded_at_two_shapes(sd1_export: Any, name: str) -> None:
    found = Manifest.read(sd1_export.folder).components[name]["parity"]
    rows = [row for row in found if "tiled" not in row["inputs"]]
    assert len(rows) == 2
    assert rows[0]["inputs"] != rows[1]["inputs"]
    # The VAE in tiles, too.
    assert len(found) - len(rows) == name.startswith("vae_")
    assert all(0 < row["relative_error"] < 1e-4 for row in found)
    for row in rows:
        assert row["inputs"].keys() == INPUTS[name]
        assert 0 < row["relative_error"] < 1e-4


@pytest.mark.full
def test_a_vae_whose_tiles_are_wrong_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt_export.architectures.vae_stages.EPS", 0.5)
    with pytest.raises(ExportError, match=r"vae_.*: in tiles, the output differs from torch by"):
        export_model(None, tmp_path / "model", architecture="tiny", random_weights=0, verify=True)
    assert not (tmp_path / "model").exists()


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


def _slightly_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU target with an activation that is wrong by half a thousandth."""
    row = TARGETS["cpu"]

    class Wrong(FusedLayers):
        def quick_gelu(self, x: Value, alpha: float = 1.702) -> Value:
            return self.multiply(super().quick_gelu(x, alpha), 1.0005)

    wrong = replace(row, layers=Wrong)
    monkeypatch.setitem(TARGETS, "cpu", wrong)  # type: ignore[arg-type]
    monkeypatch.setattr("sdrt_export.plan.resolve_target", lambda name, dtype: wrong)


def test_a_graph_that_onnxruntime_refuses_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"unet: ONNX Runtime \d.* refuses the exported graph"):
        parity.compare(COMPONENTS["unet"], tmp_path / "model.onnx", [], [], "fp32", TARGETS["cpu"])


class OnCuda:
    """A session on a GPU whose runs end with `error`; the configurations that it was asked for."""

    error: BaseException
    configs: ClassVar[list[SessionConfig]] = []

    def __init__(self, name: str, path: Path, config: SessionConfig, notices: Any) -> None:
        self.configs.append(config)
        self.inputs = self.optional = {}
        self.outputs = {
            "out_sample": TensorSpec(name="out_sample", dtype=np.dtype("f4"), shape=(1, 4, "h", "w"))
        }
        self.metadata: dict[str, str] = {}

    def run(self, feeds: Any, output: str) -> Any:
        raise self.error


def on_cuda(monkeypatch: pytest.MonkeyPatch, error: BaseException, dtype: str = "half") -> list[SdrtError]:
    """What an export says whose graphs, the whole and the stages, end with `error` on a GPU."""
    monkeypatch.setattr(parity, "Session", OnCuda)
    monkeypatch.setattr(parity, "_has_gpu", lambda: True)
    monkeypatch.setattr(parity, "StagedVae", lambda session, tile: lambda x: session.run({}, ""))
    monkeypatch.setattr(OnCuda, "error", error, raising=False)
    monkeypatch.setattr(OnCuda, "configs", [])
    array = np.zeros((1, 4, 8, 8), np.float32)
    reference = parity.Reference(inputs={"sample": array}, outputs=[array])
    path, cuda, said = Path("model.onnx"), TARGETS["cuda"], []
    for compare in (
        lambda: parity.compare(COMPONENTS["unet"], path, ["out_sample"], [reference], dtype, cuda),
        lambda: parity.compare_stages(COMPONENTS["unet"], path, [reference], dtype, cuda),
    ):
        with pytest.raises(SdrtError) as raised:
            compare()
        said.append(raised.value)
    return said


@pytest.mark.parametrize(
    "error",
    [
        ComponentError("unet failed to run on cuda: no engine"),
        ProviderError("landed on the CPU"),
        ValueError("x"),
    ],
)
def test_a_run_that_fails_on_a_gpu_names_the_target_that_runs(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Not the exporter of optimum, which takes no target but portable."""
    for said in on_cuda(monkeypatch, error):
        assert type(said) is ExportError
        assert str(error) in str(said)
        assert str(said).endswith("nothing was written: try --target portable")


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("unet ran out of memory"),
        MemoryError(),
        RuntimeError("Failed to allocate memory: 5 GB"),
    ],
)
def test_memory_that_runs_out_while_comparing_is_called_so(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    for said in on_cuda(monkeypatch, error):
        assert type(said) is OutOfMemoryError
        assert re.search(r"not enough memory on cuda .*hide the GPU \(CUDA_VISIBLE_DEVICES=-1\)", str(said))
        assert "refuses" not in str(said)


@pytest.mark.parametrize(("dtype", "passed"), [("fp32", "False"), ("fp16", "False"), (parity.HALF, None)])
def test_a_gpu_compares_in_float32_not_in_tf32(
    monkeypatch: pytest.MonkeyPatch, dtype: str, passed: str | None
) -> None:
    """Whose 10 bits are 1e-3, and the limit is 1e-4. Convolutions in float16 take the kernels that they take in use."""
    on_cuda(monkeypatch, ValueError("x"), dtype)
    assert [config.passed("cuda", Setting()).get("use_tf32") for config in OnCuda.configs] == [passed] * 2


def test_the_remedy_of_every_target_can_be_followed(tmp_path: Path) -> None:
    """Which is to say that the exporter does not refuse the options that its own messages name."""
    for row in TARGETS.values():
        (tmp_path / "model.onnx").write_bytes(b"no graph")
        if row.channels_last:
            continue
        with pytest.raises(ExportError) as raised:
            parity.compare(COMPONENTS["unet"], tmp_path / "model.onnx", [], [], "fp32", row)
        words = str(raised.value).rpartition("try ")[2].split()
        options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
        with pytest.raises(ModelNotFoundError):
            export_model(tmp_path / "no checkpoint", tmp_path / "out", **{"target": row.name} | options)


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
