"""Target `cuda` without a GPU: what is in its graphs, and by NumPy that they are the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import UNet2DConditionModel

from sdrt import StableDiffusionPipeline
from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.folder import Manifest
from sdrt_export import TARGETS, ProgressEvent, export_model
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.component_graphs import graphs_of
from sdrt_export.components import COMPONENTS, Component, parts_of
from sdrt_export.evaluator import Evaluator
from sdrt_export.precision import HEADROOM
from sdrt_export.restore import restore_checkpoint
from sdrt_export.verify.modules import load_part
from tests.export.built import as_ir, build, examples, reference, write
from tests.made_once import MadeOnce

CUDA = TARGETS["cuda"]
# Full-size SD 1.5. Sums and biases are in the norms, or in BiasAdd where no norm follows; each VAE's attention has
# three projections with a bias, in Add. Nothing else adds.
COUNTS: dict[str, dict[str, int]] = {
    "unet": {
        **{
            "NhwcConv": 98,
            "GroupNorm": 16,
            "SkipGroupNorm": 45,
            "MultiHeadAttention": 32,
            "BiasSplitGelu": 16,
        },
        **{"BiasAdd": 31, "LayerNormalization": 16, "SkipLayerNormalization": 32, "Gemm": 24, "QuickGelu": 2},
        **{"Conv": 0, "Add": 0, "Sigmoid": 0, "Gelu": 0, "InstanceNormalization": 0, "Cast": 4},
        # Three upsamplings; and the timestep's embedding has one Expand.
        **{"Resize": 0, "Pad": 0, "Expand": 3 + 1, "Slice": 3},
    },
    "vae_encoder": {
        **{
            "NhwcConv": 28,
            "GroupNorm": 14,
            "SkipGroupNorm": 8,
            "MultiHeadAttention": 1,
            "BiasAdd": 3,
            "Add": 3,
        },
        **{"Conv": 0, "QuickGelu": 0, "InstanceNormalization": 0, "Cast": 2, "Pad": 0},
    },
    "vae_decoder": {
        **{
            "NhwcConv": 36,
            "GroupNorm": 18,
            "SkipGroupNorm": 12,
            "MultiHeadAttention": 1,
            "BiasAdd": 3,
            "Add": 3,
        },
        **{"Conv": 0, "QuickGelu": 0, "InstanceNormalization": 0, "Cast": 2},
        **{"Resize": 0, "Pad": 0, "Expand": 3, "Slice": 0},
    },
    "text_encoder": {
        **{"MultiHeadAttention": 12, "LayerNormalization": 12, "SkipLayerNormalization": 24, "QuickGelu": 12},
        **{"ArgMax": 0, "GatherND": 0, "Softmax": 0, "Add": 25},
    },
}
# Into NHWC and out of it.
TRANSPOSES = {name: [] if name == "text_encoder" else [(0, 2, 3, 1), (0, 3, 1, 2)] for name in COUNTS}


@cache
def full_size(architecture: str, name: str) -> ir.Model:
    """The graph of a component at full size, without weights."""
    source = RandomCheckpoint(architecture=architecture, seed=0)
    component = {one.name: one for parts in parts_of(source.family).values() for one in parts}[name]
    return as_ir(graphs_of(component, source.config(component.checkpoint), CUDA, half=True)["model.onnx"])


# The table's columns, and what they are of.
COLUMNS: list[list[tuple[str, str]]] = [
    [("sd15", "unet")],
    [("sdxl", "unet")],
    [("sd15", "vae_encoder"), ("sdxl", "vae_encoder")],
    [("sd15", "vae_decoder"), ("sdxl", "vae_decoder")],
    [("sd15", "text_encoder"), ("sdxl", "text_encoder")],
    [("sdxl", "text_encoder_2")],
]
TABLE_ROW = re.compile(r"^\| `(\w+)`[^|]*\|(.+)\|$", re.M)


@pytest.mark.parametrize("column", range(len(COLUMNS)))
def test_the_document_has_the_operators_of_full_size(column: int) -> None:
    rows = TABLE_ROW.findall((Path(__file__).parents[2] / "docs" / "cuda.md").read_text(encoding="utf-8"))
    told = {op: cells.split("|")[column].strip().replace("–", "0") for op, cells in rows}
    assert len(told) == 11
    for architecture, name in COLUMNS[column]:
        counts = Counter(node.op_type for node in full_size(architecture, name).graph.all_nodes())
        # The embedding of the timestep has one, which repeats no pixels.
        counts["Expand"] -= name == "unet"
        assert {op: int(count) for op, count in told.items()} == {op: counts[op] for op in told}


@pytest.mark.parametrize("name", COUNTS)
def test_operators_of_full_size_sd15(name: str) -> None:
    nodes = list(full_size("sd15", name).graph.all_nodes())
    counts = Counter(node.op_type for node in nodes)
    assert {op: counts[op] for op in COUNTS[name]} == COUNTS[name]
    transposes = [node for node in nodes if node.op_type == "Transpose"]
    assert [tuple(node.attributes["perm"].as_ints()) for node in transposes] == TRANSPOSES[name]
    strides: list[tuple[int, int]] = []
    for node in nodes:
        if node.op_type == "MultiHeadAttention":
            # Packed, but for the VAE's one: queries, keys and values in one, or keys and values.
            count = 3 if name.startswith("vae") else 2 if ".attn2" in node.name else 1
            assert len(node.inputs) == count
        if node.op_type.endswith("GroupNorm"):
            assert [value.dtype for value in node.inputs[1:3]] == [ir.DataType.FLOAT] * 2
        if node.op_type == "NhwcConv":
            weight = node.inputs[1]
            assert weight.is_initializer()
            assert weight.dtype == ir.DataType.FLOAT16
            # 4: three of the encoder's, with zeros at one end so that the padding is the same all around.
            assert weight.shape[1] == weight.shape[2] in ((1, 3, 4) if name == "vae_encoder" else (1, 3))
            pads = list(node.attributes["pads"].as_ints())
            assert pads[:2] == pads[2:]
            strides.append((int(weight.shape[1]), node.attributes["strides"].as_ints()[0]))
    assert Counter(strides)[4, 2] == Counter(size for size, _ in strides)[4] == 3 * (name == "vae_encoder")


@pytest.fixture(scope="session")
def traced(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The torch module and the graph, by NumPy, of a checkpoint of `checkpoints.VARIANTS`."""
    root, made = tmp_path_factory.mktemp("channels_last"), {}

    def get(variant: str, name: str, dtype: torch.dtype) -> tuple[Component, Any, Evaluator]:
        key = (variant, name, dtype)
        if key not in made:
            module = load_part(open_folder(checkpoint(variant)), COMPONENTS[name].checkpoint)
            folder = root / f"{variant}-{name}-{dtype}"
            made[key] = (COMPONENTS[name], module, evaluator(COMPONENTS[name], module, dtype, folder))
        return made[key]

    return get


def evaluator(component: Component, module: Any, dtype: torch.dtype, folder: Path) -> Evaluator:
    write(component, module, CUDA, folder, half=dtype == torch.float16)
    return Evaluator(folder / "model.onnx")


def worst_error(component: Component, module: Any, graph: Evaluator, size: int) -> float:
    inputs = examples(component, module, size)
    expected = reference(component, module, inputs).values()
    feeds = {name: value for name, value in inputs.items() if name in graph.specs}
    got = graph.run(feeds, graph.outputs)
    return max(
        float(np.abs(ours - theirs).max() / np.abs(theirs).max()) if ours.shape == theirs.shape else np.inf
        for ours, theirs in zip(got, expected, strict=True)
    )


# sd2 projects with linears, deep has other depths; mixed has a U-Net of kinds of blocks that have no such form, and
# both have VAEs with odd numbers of channels in a group, of which there are no kernels.
REFUSED = [
    ("mixed", "unet"),
    *((variant, f"vae_{half}") for variant in ("deep", "mixed") for half in ("encoder", "decoder")),
]
MATRIX = [
    *(pytest.param("sd1", name, id=f"sd1-{name}") for name in COMPONENTS),
    *(
        pytest.param(variant, name, id=f"{variant}-{name}", marks=pytest.mark.full)
        for variant in ("sd2", "deep", "mixed")
        for name in COMPONENTS
        if (variant, name) not in REFUSED
    ),
]


@pytest.mark.parametrize(("variant", "name"), MATRIX)
def test_it_is_the_model(traced: Callable[..., Any], variant: str, name: str) -> None:
    """In float32 a wrong layout or packing has nowhere to hide: 5e-8 to 3e-6 was measured."""
    made = traced(variant, name, torch.float32)
    assert max(worst_error(*made, size) for size in (0, 1, 2)) < 1e-5


@pytest.mark.parametrize(("variant", "name"), MATRIX)
def test_in_float16_too(traced: Callable[..., Any], variant: str, name: str) -> None:
    """Every result rounded to 11 bits: 7e-4 to 3e-3 was measured, of the largest output."""
    made = traced(variant, name, torch.float16)
    assert max(worst_error(*made, size) for size in (1, 2)) < 6e-3


@pytest.mark.parametrize("size", [(40, 48), (41, 48), (40, 55), (43, 61)])
def test_the_encoder_halves_every_size_as_torch_does(
    traced: Callable[..., Any], size: tuple[int, int]
) -> None:
    """diffusers pads it at the bottom and on the right alone; the graph all around, with zeros before the weights."""
    component, module, encoder = traced("sd1", "vae_encoder", torch.float32)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).numpy()
    (expected,) = reference(component, module, {"sample": x}).values()
    (found,) = encoder.run({"sample": x}, encoder.outputs)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_zeros_before_the_weights_change_no_product(checkpoint: Callable[[str], Path]) -> None:
    """Exactly: of whole numbers, which float32 sums in any order."""
    vae = load_part(open_folder(checkpoint("sd1")), "vae")
    down = vae.encoder.down_blocks[0].downsamplers[0]
    random = torch.Generator().manual_seed(0)
    down.conv.weight.data = torch.randint(-9, 9, down.conv.weight.shape, generator=random).float()
    down.conv.bias.data.zero_()
    weight = build(COMPONENTS["vae_encoder"], vae, CUDA)["model.onnx"].weights[
        "encoder.down_blocks.0.downsamplers.0.conv.weight"
    ]
    assert weight.shape == (8, 4, 4, 8)
    tensors = {name: tensor.numpy() for name, tensor in vae.state_dict().items()}
    kernel = torch.from_numpy(weight.value(tensors)).permute(0, 3, 1, 2)
    for height in range(2, 9):
        for width in range(2, 9):
            x = torch.randint(-9, 9, (1, 8, height, width), generator=random).float()
            with torch.no_grad():
                assert torch.equal(torch.nn.functional.conv2d(x, kernel, stride=2, padding=1), down(x))


@pytest.mark.parametrize(
    ("variant", "name"), [pair for pair in REFUSED if pair != ("mixed", "unet")], ids=lambda pair: pair
)
def test_groups_without_a_kernel_are_refused_by_name(
    checkpoint: Callable[[str], Path], variant: str, name: str
) -> None:
    module = load_part(open_folder(checkpoint(variant)), "vae")
    with pytest.raises(
        UnsupportedModelError,
        match=rf"{name.removeprefix('vae_')}.*norm.*[13] channels in a group.*'portable'",
    ):
        build(COMPONENTS[name], module, CUDA)


def test_gelu_with_kernels_is_split(tmp_path: Path) -> None:
    """BiasSplitGelu is for three widths, which the tiny models have none of."""
    torch.manual_seed(0)
    module = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(320,),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()
    made = evaluator(COMPONENTS["unet"], module, torch.float32, tmp_path / "model")
    kinds = Counter(node.op_type for node in ir.load(tmp_path / "model" / "model.onnx").graph)
    assert kinds["BiasSplitGelu"] == 4
    assert worst_error(COMPONENTS["unet"], module, made, 1) < 1e-5


def test_the_end_of_a_text_is_given(traced: Callable[..., Any]) -> None:
    _, _, encoder = traced("sd1", "text_encoder", torch.float32)
    assert encoder.specs["eos_index"].shape == ("batch",)
    ids = np.arange(9).reshape(1, 9)
    feeds = {"input_ids": ids, "added_token_embeddings": np.zeros((1, 32), np.float32)}
    last, pooled = encoder.run(feeds | {"eos_index": np.array([4])}, ["last_hidden_state", "pooler_output"])
    np.testing.assert_array_equal(pooled[0], last[0, 4])


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


def open_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae_decoder"))


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
