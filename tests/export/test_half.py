"""Weights in half the bytes: the file, the arithmetic, the image; and the way back to a checkpoint."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner

from sdrt import StableDiffusionPipeline
from sdrt.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt.model_folder.folder import Manifest
from sdrt_export import export_model, restore
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.components import COMPONENTS
from sdrt_export.export import _SPACE_MARGIN, _space
from sdrt_export.restore import restore_checkpoint
from sdrt_export.verify.modules import load_part
from tests.export.built import write
from tests.made_once import MadeOnce


@pytest.fixture(scope="module")
def half(checkpoint: Callable[[str], Path], session_cache: Path, made_once: MadeOnce) -> Path:
    return made_once(
        "half", lambda folder: export_model(checkpoint("sd1"), folder, dtype="fp16", verify=True)
    )


def initializers(folder: Path, name: str) -> dict[str, np.ndarray]:
    values = ir.load(folder / name / "model.onnx").graph.initializers
    return {key: value.const_value.numpy() for key, value in values.items()}


@pytest.mark.parametrize("name", COMPONENTS)
def test_matrices_are_the_same_rounded_and_keep_their_names(half: Path, sd1_export: Any, name: str) -> None:
    narrow, wide = initializers(half, name), initializers(sd1_export.folder, name)
    assert narrow.keys() == wide.keys()
    module = load_part(open_folder(sd1_export.source), COMPONENTS[name].checkpoint)
    matrices = [key for key, value in module.named_parameters() if value.ndim > 1 and key in wide]
    assert matrices
    for key in matrices:
        np.testing.assert_array_equal(narrow[key], wide[key].astype(np.float16), strict=True)
    for key in wide.keys() - set(matrices):
        np.testing.assert_array_equal(narrow[key], wide[key], strict=True)


def test_arithmetic_stays_in_float32(half: Path) -> None:
    graph = ir.load(half / "unet" / "model.onnx").graph
    for node in graph:
        halves = [v for v in node.inputs if v is not None and v.dtype == ir.DataType.FLOAT16]
        assert not halves or node.op_type == "Cast"
    assert {value.dtype for value in (*graph.inputs, *graph.outputs)} == {ir.DataType.FLOAT}


def test_they_are_widened_once_when_they_are_loaded(half: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine
    ort.InferenceSession(str(half / "unet" / "model.onnx"), options, providers=["CPUExecutionProvider"])
    loaded = ir.load(tmp_path / "loaded.onnx").graph
    weights = [
        value for value in loaded.initializers.values() if value.const_value.dtype == ir.DataType.FLOAT16
    ]
    assert weights == []
    assert not [node for node in loaded if node.op_type == "Cast" and node.inputs[0].is_initializer()]


@pytest.mark.parametrize(("dtype", "width"), [("fp32", 4), ("fp16", 2)])
def test_the_disk_must_hold_the_weights_in_their_dtype(
    checkpoint: Callable[[str], Path], dtype: str, width: int
) -> None:
    source = open_folder(checkpoint("sd1"))
    modules = [load_part(source, part) for part in ("text_encoder", "unet", "vae")]
    count = sum(parameter.numel() for module in modules for parameter in module.parameters())
    assert _space(source, (), dtype, "sdrt") - _SPACE_MARGIN == pytest.approx(width * count, rel=1e-3)


def test_the_image_is_the_same_but_for_rounding(half: Path, sd1_export: Any) -> None:
    images = []
    for folder in (half, sd1_export.folder):
        pipeline = StableDiffusionPipeline.from_pretrained(folder, provider="cpu", notify=lambda _: None)
        (image,) = pipeline("a red circle", seed=0, num_inference_steps=5).images
        images.append(np.asarray(image, dtype=int))
    difference = np.abs(images[0] - images[1])
    assert 0 < difference.max() <= 4  # measured: 2


def test_a_weight_that_half_cannot_hold_stays_whole(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from sdrt_export import TARGETS

    module = load_part(open_folder(checkpoint("sd1")), "vae")
    with torch.no_grad():
        module.decoder.conv_in.weight[0, 0, 0, 0] = 1e5
    write(COMPONENTS["vae_decoder"], module, TARGETS["cpu"], tmp_path / "vae", narrow=True)
    weights = ir.load(tmp_path / "vae" / "model.onnx").graph.initializers
    assert weights["decoder.conv_in.weight"].const_value.dtype == ir.DataType.FLOAT
    assert weights["decoder.conv_out.weight"].const_value.dtype == ir.DataType.FLOAT16


@pytest.mark.full
def test_the_guidance_that_is_asked_for_is_the_models_default(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    manifest = export_model(checkpoint("sd1"), tmp_path / "model", dtype="fp16", guidance_scale=2)
    assert Manifest.read(tmp_path / "model").defaults == manifest.defaults == {"guidance_scale": 2.0}
    with pytest.raises(RequestError, match="guidance_scale is nan"):
        export_model(checkpoint("sd1"), tmp_path / "other", guidance_scale=float("nan"))


def test_optimum_has_no_half(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="writes fp32 only"):
        export_model(
            checkpoint("sd1"), tmp_path / "model", exporter="optimum", target="portable", dtype="fp16"
        )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_restored_weights_are_the_checkpoint_s(
    half: Path, sd1_export: Any, tmp_path: Path, dtype: str
) -> None:
    restore_checkpoint(half if dtype == "float16" else sd1_export.folder, tmp_path / "restored")
    for part in ("text_encoder", "unet", "vae"):
        made, original = (
            dict(load_part(open_folder(path), part).named_parameters())
            for path in (tmp_path / "restored", sd1_export.source)
        )
        assert made.keys() == original.keys()
        for name, value in original.items():
            expected = value if dtype == "float32" or value.ndim < 2 else value.half().float()
            assert torch.equal(made[name], expected), name


@pytest.mark.parametrize("model", ["sd1", "shapes"])
def test_a_restored_checkpoint_loads_without_complaints(
    request: pytest.FixtureRequest, tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every tensor has a place, every place a tensor, and every key of a config is known."""
    import diffusers
    import transformers

    source = request.getfixturevalue("sd1_export").folder if model == "sd1" else model
    restore_checkpoint(source, tmp_path / "restored")
    classes = {
        "text_encoder": transformers.CLIPTextModel,
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
    } | ({"taesd_decoder": diffusers.AutoencoderTiny} if model == "shapes" else {})
    for logger in (diffusers.utils.logging, transformers.utils.logging):
        logger.enable_propagation()
    for part, model_class in classes.items():
        with caplog.at_level("WARNING"):
            module, info = model_class.from_pretrained(
                tmp_path / "restored" / part, use_safetensors=True, output_loading_info=True
            )
        assert not any(info.values()), info
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    for logger in (diffusers.utils.logging, transformers.utils.logging):
        logger.disable_propagation()
    assert [record.message for record in caplog.records] == []


def test_restoring_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom sdrt_export.restore import restore_checkpoint\nfrom pathlib import Path\n"
        f"restore_checkpoint('shapes', Path({str(tmp_path / 'restored')!r}))\n"
        "print({'torch', 'diffusers', 'transformers', 'safetensors', 'onnx_ir'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def test_the_command_restores_the_embedded_model_once(tmp_path: Path) -> None:
    checkpoint = tmp_path / "restored"
    for code, said in ((0, str(checkpoint)), (2, "--force")):
        result = CliRunner().invoke(restore.main, ["shapes", str(checkpoint)])
        assert result.exit_code == code, result.output
        assert said in result.output
    assert (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_a_model_is_not_restored_over_itself(half: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(half, tmp_path / "model"))
    before = sorted(model.rglob("*"))
    for output in (model, model / "unet" / "checkpoint"):
        with pytest.raises(RequestError, match="choose"):
            restore_checkpoint(model, output, force=True)
    assert sorted(model.rglob("*")) == before


def test_restoring_from_what_is_read_only(half: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(half, tmp_path / "model"))
    for path in (*model.rglob("*"), model):
        path.chmod(0o555 if path.is_dir() else 0o444)
    restore_checkpoint(model, tmp_path / "checkpoint")
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "checkpoint").rglob("*"))


def test_the_embedded_model_is_not_exported_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"sdrt_export\.restore shapes"):
        export_model("shapes", tmp_path / "model")


def test_a_model_of_another_exporter_cannot_be_restored(optimum_export: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="was not exported by sdrt"):
        restore_checkpoint(optimum_export, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


@pytest.fixture(scope="module")
def portable(checkpoint: Callable[[str], Path], session_cache: Path, made_once: MadeOnce) -> Path:
    return made_once(
        "portable",
        lambda folder: export_model(checkpoint("sd1"), folder, target="portable", dtype="fp16", verify=True),
    )


@pytest.mark.full
def test_a_portable_half_computes_in_float16(portable: Path, sd1_export: Any) -> None:
    """For TensorRT and OpenVINO; on the CPU ONNX Runtime runs it too, slowly, to the same image but for rounding."""
    for name, entry in Manifest.read(portable).components.items():
        assert entry["dtype"] == "float16"
        assert all(row["relative_error"] < 1e-2 for row in entry["parity"])
        graph = ir.load(portable / name / "model.onnx").graph
        assert {value.dtype for value in (*graph.inputs, *graph.outputs)} <= {
            ir.DataType.FLOAT,
            ir.DataType.INT64,
        }
        products = [node for node in graph if node.op_type in ("MatMul", "Conv", "Gemm")]
        weights = [node.inputs[1] for node in products if node.inputs[1].is_initializer()]
        assert {weight.dtype for weight in weights} == {ir.DataType.FLOAT16}
        assert not [node for node in graph if node.op_type == "Cast" and node.inputs[0] in weights]
    call = {"num_inference_steps": 3, "width": 64, "height": 64, "seed": 4, "output_type": "np"}
    expected = StableDiffusionPipeline.from_pretrained(sd1_export.folder)("a", **call).images
    found = StableDiffusionPipeline.from_pretrained(portable)("a", **call).images
    assert np.abs(found - expected).max() < 0.02
