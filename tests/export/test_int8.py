"""int8: which layers, how far from float32, tiles, what the manifest says, and what is refused."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.common.notices import Notices
from sdrt.errors import ExportError, RequestError, UnsupportedModelError
from sdrt.model_folder.folder import Manifest
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt_export import calibrate, export_model, int8
from sdrt_export.calibrate import Calibration
from sdrt_export.graphs.stored import StoredGraph
from sdrt_export.quantize import Span, layers, quantize
from sdrt_export.restore import restore_checkpoint
from tests.made_once import MadeOnce

PROMPTS = ("a cat on a table", "a red house", "an old man")


@pytest.fixture(scope="module")
def small(session_cache: Path, made_once: MadeOnce) -> Path:
    """The tiny architecture, in int8. Without guidance, whose images of random weights grow without bounds."""
    export = partial(
        export_model,
        None,
        architecture="tiny",
        random_weights=0,
        dtype="int8",
        guidance_scale=1,
        calibration_prompts=PROMPTS,
    )
    return made_once("int8", lambda folder: export(output=folder))


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in ir.load(path).graph)


@pytest.mark.parametrize("name", int8.QUANTIZED)
def test_every_layer_but_those_of_the_table_is_in_int8(small: Path, tiny_model: Path, name: str) -> None:
    before = StoredGraph.read(tiny_model / name / "model.onnx")
    kinds = Counter(layer.node.op_type for layer in layers(before))
    after = operators(small / name / "model.onnx")
    assert kinds["Conv"] > 5
    assert after["QLinearConv"] == kinds["Conv"]
    assert after["MatMulIntegerToFloat"] == kinds["MatMul"]
    told = Manifest.read(small).components[name]["int8"]
    assert told["layers"] == kinds["Conv"] + kinds["MatMul"]
    floats = {"unet": 2, "vae_decoder": 3, "vae_encoder": 3}[name]
    assert after["Conv"] == floats == len(told["float"])
    assert all("conv_in" in key or "conv_out" in key or "quant_conv" in key for key in told["float"])


def test_weights_are_bytes(small: Path) -> None:
    weights = ir.load(small / "unet" / "model.onnx").graph.initializers
    kinds = {key: value.const_value.dtype for key, value in weights.items() if key.endswith("conv1.weight")}
    assert set(kinds.values()) == {ir.DataType.INT8}


def test_a_text_encoder_has_its_weights_in_bytes_and_nearly_the_same_outputs(
    small: Path, tiny_model: Path
) -> None:
    paths = [folder / "text_encoder" / "model.onnx" for folder in (tiny_model, small)]
    before, after = map(operators, paths)
    assert after["MatMulNBits"] == before["MatMul"] > 5
    assert "MatMul" not in after
    # The rest are scales, norms and the positions, which count here, with so few channels.
    sizes = [path.with_name("model.onnx_data").stat().st_size for path in paths]
    assert sizes[1] < 0.45 * sizes[0]
    entry = Manifest.read(small).components["text_encoder"]
    assert entry["int8"]["layers"] == after["MatMulNBits"] + 1  # the table of tokens
    (row,) = entry["parity"]
    assert row["inputs"]["calls"] == len(PROMPTS)
    assert 1e-4 < row["relative_error"] < 0.02
    made = []
    for path in paths:
        encoder = Component("text_encoder", path, SessionConfig(provider="cpu"), Notices(None))
        tokens = np.full((1, 77), 5, np.int64)
        made.append(encoder.run({"input_ids": tokens}, "last_hidden_state"))
    assert 0 < np.linalg.norm(made[1] - made[0]) < 0.02 * np.linalg.norm(made[0])


def test_queries_keys_and_values_share_their_bytes(small: Path) -> None:
    graph = ir.load(small / "unet" / "model.onnx").graph
    quantized = [node.inputs[0].name for node in graph if node.op_type == "QuantizeLinear"]
    assert len(quantized) == len(set(quantized))
    inputs = {
        node.inputs[1].name: node.inputs[0].name for node in graph if node.op_type == "MatMulIntegerToFloat"
    }
    queries = [name for name in inputs if name.endswith("attn1.to_q.weight")]
    assert queries
    for name in queries:
        assert len({inputs[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")}) == 1


def test_the_kernels_are_still_those_when_it_is_loaded(small: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine
    ort.InferenceSession(str(small / "unet" / "model.onnx"), options, providers=["CPUExecutionProvider"])
    loaded, written = operators(tmp_path / "loaded.onnx"), operators(small / "unet" / "model.onnx")
    for name in ("QLinearConv", "MatMulIntegerToFloat"):
        assert loaded[name] == written[name]


def test_the_manifest_has_errors_on_a_prompt_that_was_not_calibrated_on(small: Path) -> None:
    manifest = Manifest.read(small)
    assert manifest.dtype == "int8"
    for name in int8.QUANTIZED:
        entry = manifest.components[name]
        assert entry["calibration"]["prompts"] == list(PROMPTS)
        assert len(entry["parity"]) == 1 + name.startswith("vae_")
        for row in entry["parity"]:
            assert 1e-4 < row["relative_error"] < 0.2  # measured: 0.04 to 0.12, of so few channels


def test_images_are_nearly_those_of_float32_and_whole_ones_those_of_tiles(
    small: Path, tiny_model: Path
) -> None:
    images = []
    for folder, tiling in ((tiny_model, None), (small, None), (small, True)):
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, provider="cpu", vae_tiling=tiling, notify=lambda _: None
        )
        images.append(
            pipeline("a cat", seed=0, guidance_scale=1.0, num_inference_steps=5, output_type="np").images[0]
        )
    exact, whole, tiled = images
    assert 0 < np.abs(whole - exact).mean() < 0.02
    assert np.abs(tiled - whole).mean() < 0.01


def test_a_folder_in_int8_is_told_by_its_commands(small: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(small)])
    assert result.exit_code == 0, result.output
    assert "int8" in result.output


@pytest.mark.full
def test_an_error_above_the_limit_leaves_nothing(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Of random weights, with guidance: other latents than those that were calibrated on, and 0.1 to 0.2 apart."""
    # The U-Net's ranges are of an image without guidance too, and suffice; the decoder's do not.
    with pytest.raises(
        ExportError, match=r"vae_decoder: int8 differs from float32 by 0\.[12].*--calibration-prompts"
    ):
        export_model(checkpoint("sd1"), tmp_path / "model", dtype="int8", calibration_prompts=PROMPTS[:2])
    assert not (tmp_path / "model").exists()


def test_what_is_refused_before_anything_is_exported(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="at least 2"):
        export_model(checkpoint("sd1"), tmp_path / "a", dtype="int8", calibration_prompts=("a",))
    with pytest.raises(RequestError, match="are for dtype 'int8'"):
        export_model(checkpoint("sd1"), tmp_path / "a", calibration_prompts=PROMPTS)
    with pytest.raises(RequestError, match="'portable' has no dtype 'int8'"):
        export_model(checkpoint("sd1"), tmp_path / "a", target="portable", dtype="int8")


def test_weights_in_int8_are_not_restored(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="is in int8"):
        restore_checkpoint(small, tmp_path / "restored")


def test_the_command_reads_prompts_from_a_file(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    for text, said in (('{"prompt": "a", "seed": 1}\nb\n', "expected only prompts"), ("a\n", "at least 2")):
        prompts.write_text(text)
        arguments = ["export", "x/", "-o", str(tmp_path / "m"), "--dtype", "int8"]
        result = CliRunner().invoke(main, [*arguments, "--calibration-prompts", str(prompts)])
        assert result.exit_code == 2
        assert said in result.output


def test_progress_says_what_int8_is_compared_with(tmp_path: Path) -> None:
    """No torch has a part in it."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    tiny = ["--architecture", "tiny", "--random-weights", "0", "--guidance-scale", "1", "--dtype", "int8"]
    output = ["--calibration-prompts", str(prompts), "-o", str(tmp_path / "model")]
    result = CliRunner().invoke(main, ["export", *tiny, *output])
    assert result.exit_code == 0, result.output
    assert "unet: comparing with float32" in result.stderr
    assert "torch" not in result.stderr


def test_other_kinds_of_u_nets_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"is for inpainting.*--dtype fp32"):
        export_model(checkpoint("inpaint"), tmp_path / "model", dtype="int8", calibration_prompts=PROMPTS)


# --- one layer, in numbers ----------------------------------------------------------------------------------


def one_layer(operator: str, weight: np.ndarray, bias: np.ndarray) -> StoredGraph:
    shape = [None, weight.shape[1], None, None] if operator == "Conv" else [None, None, weight.shape[0]]
    if operator == "Conv":
        nodes = [helper.make_node("Conv", ["x", "weight", "bias"], ["y"], pads=[1, 1, 1, 1])]
    else:
        nodes = [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["y"]),
        ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", shape), ("y", None))
    )
    constants = [numpy_helper.from_array(array, name) for name, array in (("weight", weight), ("bias", bias))]
    graph = helper.make_graph(nodes, "one", [x], [y], constants)
    return StoredGraph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(graph: StoredGraph, x: np.ndarray, path: Path) -> np.ndarray:
    """As the runtime does: without VNNI, ONNX Runtime's own default would let sums overflow."""
    graph.save(path)
    return Component("layer", path, SessionConfig(provider="cpu"), Notices(None)).run({"x": x}, "y")


@pytest.mark.parametrize("operator", ["Conv", "MatMul"])
def test_one_layer_is_as_near_as_its_steps_allow(operator: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shape = (8, 16, 3, 3) if operator == "Conv" else (16, 8)
    weight, bias = (random.standard_normal(size).astype(np.float32) for size in (shape, (8,)))
    # Channels of very different size, of which each has its own steps.
    weight *= (10.0 ** np.linspace(-3, 1, 8, dtype=np.float32)).reshape(
        (-1, 1, 1, 1) if operator == "Conv" else (1, -1)
    )
    bias *= np.abs(weight).max(axis=(1, 2, 3) if operator == "Conv" else 0)
    x = random.standard_normal((2, 16, 6, 5) if operator == "Conv" else (2, 7, 16)).astype(np.float32)
    expected = run(one_layer(operator, weight, bias), x, tmp_path / "float.onnx")
    spread = (0, 2, 3)
    channels = (
        {"out_low": expected.min(spread), "out_high": expected.max(spread)} if operator == "Conv" else {}
    )
    model = one_layer(operator, weight, bias)
    assert quantize(model, {"weight": Span(low=x.min(), high=x.max(), **channels)}) == ["weight"]
    made = run(model, x, tmp_path / "int8.onnx")
    axes = spread if operator == "Conv" else (0, 1)
    error = np.sqrt(np.square(made - expected).mean(axes) / np.square(expected).mean(axes))
    assert (error > 0).all()
    assert (error < 0.02).all()  # measured: up to 0.012, in every channel, however small


@pytest.mark.parametrize("count", [2, 4])
def test_ranges_are_of_many_timesteps_with_guidance_and_without(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Whatever the count of prompts, of which the last is for the errors alone."""
    seen: list[tuple[float, int]] = []
    fold = calibrate._Probe.see

    def see(probe: Any, inputs: dict[str, np.ndarray], *rest: Any) -> None:
        if probe.name == "unet" and not probe.held_out:
            seen.append((float(inputs["timestep"]), len(inputs["sample"])))
        fold(probe, inputs, *rest)

    monkeypatch.setattr(calibrate._Probe, "see", see)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "sdrt.json").unlink()  # it is one of an export under way, with more beside it than is listed
    plan = Calibration(prompts=("a", "b", "c", "d")[:count])
    said = [one for one in calibrate.calibrate(folder, ["unet"], plan, None) if isinstance(one, str)]
    assert said[-1] == f"image {count + 1} of {count + 1}"
    guided = {timestep for timestep, batch in seen if batch == 2}
    unguided = {timestep for timestep, batch in seen if batch == 1}
    # Of 7, 8 and 9 steps, which share the last one.
    assert len(guided) >= {2: 7, 4: 21}[count]
    assert len(unguided) >= 7
    for timesteps in (guided, unguided):
        assert min(timesteps) < 10
        assert max(timesteps) > 800
        assert max(np.diff(sorted(timesteps))) < 200


def test_the_usual_prompts_are_denoised_at_counts_of_their_own() -> None:
    *calibrated, last = Calibration().runs(None)
    assert len({run.num_inference_steps for run in calibrated}) == len(calibrated) == 6
    assert [run.guidance_scale for run in calibrated].count(1.0) == 1
    assert [run.is_held_out for run in (*calibrated, last)] == [False] * 6 + [True]
    assert last.guidance_scale is None


def test_a_model_without_guidance_gets_no_image_more() -> None:
    assert len(Calibration(prompts=PROMPTS).runs(1.0)) == len(PROMPTS)
