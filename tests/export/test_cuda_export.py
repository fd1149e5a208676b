"""An export for `cuda` without a GPU: its files, its stages, and the whole pipeline by NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from sdrt import StableDiffusionPipeline
from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.folder import Manifest
from sdrt_export import ProgressEvent, export_model
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.components import COMPONENTS
from sdrt_export.evaluator import Evaluator
from sdrt_export.precision import HEADROOM
from sdrt_export.restore import restore_checkpoint
from sdrt_export.verify.modules import load_part
from tests.export.built import build
from tests.export.cuda_graphs import CUDA, worst_error
from tests.made_once import MadeOnce


@pytest.fixture(scope="module")
def exported(
    checkpoint: Callable[[str], Path], session_cache: Path, made_once: MadeOnce
) -> tuple[Path, Manifest]:
    folder = made_once(
        "cuda", lambda folder: export_model(checkpoint("sd1"), folder, target="cuda", verify=True)
    )
    return folder, Manifest.read(folder)


def test_an_export_is_in_float16_and_checked(exported: tuple[Path, Manifest]) -> None:
    folder, manifest = exported
    assert (manifest.target, manifest.dtype) == ("cuda", "float16")
    for name, entry in manifest.components.items():
        assert entry["dtype"] == "float16"
        assert 0 < entry["activations"]["largest"] * HEADROOM < 65504
        assert all(0 < row["relative_error"] < 1e-2 for row in entry["parity"])
        weights = [value.dtype for value in ir.load(folder / name / "model.onnx").graph.initializers.values()]
        assert Counter(weights)[ir.DataType.FLOAT16] > Counter(weights)[ir.DataType.FLOAT]


@pytest.mark.parametrize("name", COMPONENTS)
def test_beside_each_graph_is_one_in_float32(
    exported: tuple[Path, Manifest], checkpoint: Callable[[str], Path], name: str
) -> None:
    """With the same file of weights; what is left of the error is their rounding."""
    folder = exported[0] / name
    wide, half = Evaluator(folder / "model_fp32.onnx"), Evaluator(folder / "model.onnx")
    assert (folder / "model_fp32.onnx").stat().st_size < 2 * (folder / "model.onnx").stat().st_size
    module = load_part(open_folder(checkpoint("sd1")), COMPONENTS[name].checkpoint)
    assert worst_error(COMPONENTS[name], module, wide, 2) < worst_error(COMPONENTS[name], module, half, 2)
    for part in module.modules():
        if not isinstance(part, torch.nn.GroupNorm):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.half().float()
    assert worst_error(COMPONENTS[name], module, wide, 2) < 1e-5


@pytest.mark.full
def test_a_vae_that_overflows_stays_in_float32(
    checkpoint: Callable[[str], Path], session_cache: Path, tmp_path: Path
) -> None:
    """Two convolutions in a row, one 1e5 times larger and one smaller: the same image, by way of large numbers."""
    source = open_folder(checkpoint("sd1"))
    vae = load_part(source, "vae")
    resnet = vae.decoder.up_blocks[0].resnets[0]
    with torch.no_grad():
        resnet.conv1.weight *= 1e5
        resnet.conv1.bias *= 1e5
    folder = copy_with_vae(checkpoint("sd1"), vae, tmp_path / "checkpoint")
    events: list[ProgressEvent] = []
    manifest = export_model(
        folder, tmp_path / "model", target="cuda", dtype="fp16", verify=True, reporter=events.append
    )
    (last,) = [event for event in events if (event.component, event.stage) == ("vae_decoder", "done")]
    assert "stays in fp32: decoder.up_blocks.0.resnets.0.conv1 reaches" in last.detail
    dtypes = {name: entry["dtype"] for name, entry in manifest.components.items()}
    assert dtypes == dict.fromkeys(COMPONENTS, "float16") | {"vae_decoder": "float32"}
    entry = manifest.components["vae_decoder"]
    assert entry["activations"]["largest"] * HEADROOM > 65504
    assert all(row["relative_error"] < 1e-4 for row in entry["parity"])
    for name in ("model_fp32.onnx", "stages_fp32.onnx"):
        assert not (tmp_path / "model" / "vae_decoder" / name).exists()


def copy_with_vae(source: Path, vae: Any, folder: Path) -> Path:
    import shutil

    shutil.copytree(source, folder)
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    return folder


def test_downsampling_that_loses_odd_sizes_is_refused_by_name(checkpoint: Callable[[str], Path]) -> None:
    unet = load_part(open_folder(checkpoint("sd1")), "unet")
    unet.register_to_config(downsample_padding=0)
    with pytest.raises(
        UnsupportedModelError, match=r"down_blocks\.0\.downsamplers.*no kernel for downsampling.*'portable'"
    ):
        build(COMPONENTS["unet"], unet, CUDA)


def test_stages_share_the_weights_and_are_the_vae(exported: tuple[Path, Manifest]) -> None:
    folder, manifest = exported
    for name in ("vae_encoder", "vae_decoder"):
        rows = [row for row in manifest.components[name]["parity"] if row["output"] == "stages.onnx"]
        assert [row["relative_error"] < 1e-2 for row in rows] == [True]
        stages = ir.load(folder / name / "stages.onnx").graph.initializers
        # Of these the CUDA provider has no kernel, in ONNX's version 20 or in this layout.
        operators = {node.op_type for node in ir.load(folder / name / "stages.onnx").graph}
        assert operators & {"Conv", "Pad", "Resize"} == set()
        outside = [v for v in stages.values() if isinstance(v.const_value, ir.ExternalTensor)]
        assert (
            len(outside)
            == len(stages) - sum(isinstance(v.const_value, ir.TensorProtoTensor) for v in stages.values())
            > 20
        )


@pytest.mark.parametrize("name", ["vae_encoder", "vae_decoder"])
def test_beside_the_stages_are_those_in_float32(exported: tuple[Path, Manifest], name: str) -> None:
    """For images that overflow float16 in tiles; with the same file of weights."""
    folder, manifest = exported
    errors = {
        row["output"]: row["relative_error"]
        for row in manifest.components[name]["parity"]
        if row["output"].startswith("stages")
    }
    assert 0 < errors["stages_fp32.onnx"] < errors["stages.onnx"] < 1e-2
    assert f"{name}/stages_fp32.onnx" in manifest.files
    half, wide = (ir.load(folder / name / f"{stages}.onnx") for stages in ("stages", "stages_fp32"))
    assert wide.metadata_props == half.metadata_props
    for node in wide.graph:
        halves = {
            value.name for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT16
        }
        assert not halves or (node.op_type == "Cast" and halves <= wide.graph.initializers.keys())
    outside = {
        value.const_value.location
        for value in wide.graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    assert outside == {"model.onnx_data"}
    assert (folder / name / "stages_fp32.onnx").stat().st_size < 2 * (
        folder / name / "stages.onnx"
    ).stat().st_size


class NumpyComponent:
    """What the pipeline asks of a component, by NumPy."""

    float32_retry = None

    def __init__(self, name: str, path: Path, *_: Any, **__: Any) -> None:
        self.name, self._graph = name, Evaluator(path)
        self.inputs = {key: self._graph.specs[key] for key in self._graph.inputs}
        self.optional = {key: spec for key, spec in self._graph.specs.items() if key not in self.inputs}
        self.outputs = {spec.name: spec for spec in self._graph.output_specs}

    def require(self, inputs: Any, outputs: Any) -> None:
        assert set(self.inputs) == set(inputs)
        assert set(outputs) <= self.outputs.keys()

    def check_finite(self, output: str, array: np.ndarray) -> None:
        assert np.isfinite(array).all(), output

    @contextmanager
    def bound(self, shapes: dict[str, tuple[int, ...]], outputs: Any) -> Iterator[Any]:
        graph, feeds = self._graph, {}

        class Run:
            def shape(self, name: str) -> tuple[int, ...]:
                return shapes[name]

            def set(self, name: str, array: np.ndarray) -> None:
                assert array.shape == shapes[name]
                feeds[name] = array.astype(graph.specs[name].dtype)

            def __call__(self) -> dict[str, np.ndarray]:
                return dict(zip(outputs, graph.run(feeds, outputs), strict=True))

        yield Run()


def test_the_whole_pipeline_makes_the_same_image(
    exported: tuple[Path, Manifest], sd1_export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From prompt to image, in float16, beside the export for the CPU in float32."""
    call: dict[str, Any] = {
        "num_inference_steps": 3,
        "width": 64,
        "height": 72,
        "seed": 4,
        "output_type": "np",
    }
    prompt = "a (lighthouse:1.2) on a cliff"
    expected = StableDiffusionPipeline.from_pretrained(sd1_export.folder)(prompt, **call).images
    monkeypatch.setattr("sdrt.run.open_graphs.Component", NumpyComponent)
    monkeypatch.setattr("sdrt.run.components.check_target", lambda *_: None)
    found = StableDiffusionPipeline.from_pretrained(exported[0], provider="cpu")(prompt, **call).images
    assert np.ptp(expected) > 0.2
    # 11 bits in every result of 3 steps and the VAE; the largest of all pixels.
    assert np.abs(found - expected).max() < 0.02


def test_attention_that_the_benchmark_takes_apart_is_the_same(
    exported: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """`benchmarks/choices.py` measures whether packing queries, keys and values pays."""
    from benchmarks.choices import unpack

    graph = exported[0] / "unet" / "model.onnx"
    packed, apart = Evaluator(graph), Evaluator(unpack(graph, tmp_path))
    sizes = {"batch": 2, "height": 8, "width": 8, "sequence": 77}
    random = np.random.default_rng(0)
    feeds = {}
    for name in packed.inputs:
        spec = packed.specs[name]
        shape = [sizes.get(size, size) for size in spec.shape]
        feeds[name] = np.asarray(random.standard_normal(shape), spec.dtype)
    # Smaller products sum in another order, and every result is rounded to 11 bits: 3e-3 was measured.
    made, expected = (graph.run(feeds, graph.outputs)[0] for graph in (apart, packed))
    np.testing.assert_allclose(made, expected, atol=1e-2)
    attentions = [
        node for node in ir.load(tmp_path / "unpacked.onnx").graph if node.op_type == "MultiHeadAttention"
    ]
    assert {len(node.inputs) for node in attentions} == {2, 3}


def test_packed_weights_cannot_be_restored(exported: tuple[Path, Manifest], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"target cuda, which packs weights"):
        restore_checkpoint(exported[0], tmp_path / "checkpoint")
