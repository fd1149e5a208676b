"""What is compared with torch, and what fails there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

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
from sdrt_export import TARGETS, export_model
from sdrt_export.components import COMPONENTS
from sdrt_export.verify import parity

INPUTS = {
    "text_encoder": {"input_ids", "added_token_embeddings", "eos_index"},
    "unet": {"sample", "timestep", "encoder_hidden_states"},
    "vae_encoder": {"sample"},
    "vae_decoder": {"latent_sample"},
}


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
