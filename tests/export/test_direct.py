"""Checkpoints that run directly: as their exports do, from every kind of file, with nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from sdrt import StableDiffusionPipeline
from sdrt.benchmark.memory import own_bytes
from sdrt.cli import main
from sdrt.common.safetensors_file import as_array, read_header
from sdrt.errors import (
    ComponentError,
    IntegrityError,
    ModelNotFoundError,
    RequestError,
    UnsupportedModelError,
)
from sdrt.images.metadata import read_metadata
from sdrt.model_folder.graph_kind import STAGES_GRAPH, WHOLE_GRAPH
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt_export import export_model, open_direct
from tests.export.checkpoints.ldm_files import made
from tests.safetensors_files import save_file, write_file

Checkpoint = Callable[[str], Path]
Get = Callable[[str], Path]
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
# What each number type becomes in a checkpoint's files.
NARROWED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F64": lambda array: array.astype(np.float64),
    "F16": lambda array: array.astype(np.float16),
    # The upper half of a float32.
    "BF16": lambda array: (array.view(np.uint32) >> 16).astype(np.uint16),
    # The upper half of a float16.
    "F8_E5M2": lambda array: (array.astype(np.float16).view(np.uint16) >> 8).astype(np.uint8),
    # 1.0 and -0.5, by the sign.
    "F8_E4M3": lambda array: np.where(array < 0, np.uint8(0xB0), np.uint8(0x38)),
}


def image(model: Path | str, **options: Any) -> np.ndarray:
    """An image of two steps. More steps would not show more, and random weights amplify rounding."""
    with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=print, **options) as pipeline:
        call: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np"}
        made = pipeline("a red circle", negative_prompt="blue", **call)
        return np.asarray(made.images)


def narrowed(source: Path, folder: Path, dtype: str) -> Path:
    """A copy of a checkpoint whose matrices are of another number type. Vectors stay, as in files in the wild."""
    shutil.copytree(source, folder)
    for part, name in WEIGHTS.items():
        path = folder / part / name
        header = read_header(path)
        data = path.read_bytes()
        entries: dict[str, Any] = {}
        chunks = []
        for key, entry in header.tensors.items():
            array = as_array(header, key, data[entry.start : entry.end])
            is_matrix = array.ndim > 1
            chunks.append((NARROWED[dtype](array) if is_matrix else array).tobytes())
            end = sum(map(len, chunks))
            place = [end - len(chunks[-1]), end]
            entries[key] = {
                "dtype": dtype if is_matrix else entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": place,
            }
        write_file(path, entries, chunks)
    return folder


def files(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file below some folders, with its size and time."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found if path.is_file()}


@pytest.fixture(scope="module")
def export(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Get:
    """The exported folder of a checkpoint."""
    made: dict[str, Path] = {}

    def get(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("exported") / variant
            export_model(checkpoint(variant), made[variant], target="cpu")
        return made[variant]

    return get


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("sd1", whole=True).saved(tmp_path_factory.mktemp("single") / "my-model.safetensors")


# --- the same images as an export -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["sd1", "sd2", "deep", "mixed"])
def test_a_folder_runs_as_its_export_does_bit_by_bit(
    checkpoint: Checkpoint, export: Get, variant: str
) -> None:
    np.testing.assert_array_equal(image(checkpoint(variant)), image(export(variant)))


@pytest.mark.parametrize("dtype", list(NARROWED))
def test_weights_of_other_number_types_run_as_their_export_does(
    checkpoint: Checkpoint, tmp_path: Path, dtype: str
) -> None:
    source = narrowed(checkpoint("sd1"), tmp_path / "narrow", dtype)
    export_model(source, tmp_path / "exported", target="cpu")
    np.testing.assert_array_equal(image(source), image(tmp_path / "exported"))


def test_tiles_and_low_memory_run_as_an_export_does(checkpoint: Checkpoint, export: Get) -> None:
    options = {"vae_tiling": True, "low_vram": True}
    np.testing.assert_array_equal(image(checkpoint("sd1"), **options), image(export("sd1"), **options))


@pytest.mark.parametrize("variant", ["inpaint", "pix2pix", "upscale"])
def test_tasks_with_an_image_run_as_their_export_does(
    checkpoint: Checkpoint, export: Get, variant: str
) -> None:
    given = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    mask = {"mask_image": np.ones((64, 64), np.float32)} if variant == "inpaint" else {}
    found = []
    for model in (checkpoint(variant), export(variant)):
        with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=print) as pipeline:
            call: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np", **mask}
            found.append(np.asarray(pipeline("a cat", image=given, **call).images))
    np.testing.assert_array_equal(*found)


def test_previews_are_those_of_an_export(checkpoint: Checkpoint, export: Get) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    found = []
    for model in (checkpoint("sd1"), export("sd1")):
        with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=print) as pipeline:
            found.append(np.asarray(pipeline.preview(latents)[0]))
    np.testing.assert_array_equal(*found)


# --- files ---------------------------------------------------------------------------------------------------


def test_nothing_is_written(
    checkpoint: Checkpoint, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(checkpoint("sd1"), tmp_path / "source")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "here"))
    before = files(tmp_path)
    image(source)
    assert files(tmp_path) == before
    assert not own_cache.exists()


@pytest.mark.skipif(
    sys.platform != "linux" or own_bytes("self") is None, reason="the system does not report memory"
)
def test_an_open_graph_takes_the_memory_of_its_weights(tmp_path: Path) -> None:
    """Without `trim`, it takes twice as much: glibc keeps the weights that ONNX Runtime has widened and reordered."""
    code = """
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from sdrt.benchmark.memory import own_bytes
from sdrt.common.notices import Notices
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

folder, count, side = Path(sys.argv[1]), 30, 256
size = 2 * 9 * side**2
(folder / "weights").write_bytes(np.ones(count * size // 2, np.float16).tobytes())
weights, nodes = [], []
for n in range(count):
    weight = TensorProto(name=f"w{n}", data_type=10, data_location=1, dims=[side, side, 3, 3])
    for key, value in {"location": "weights", "offset": n * size, "length": size}.items():
        weight.external_data.add(key=key, value=str(value))
    weights.append(weight)
    nodes.append(helper.make_node("Cast", [weight.name], [f"wide{n}"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Conv", [f"x{n}", f"wide{n}"], [f"x{n + 1}"], pads=[1] * 4))
first, last = (helper.make_tensor_value_info(f"x{n}", 1, [1, side, 8, 8]) for n in (0, count))
graph = helper.make_graph(nodes, "g", [first], [last], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
memory = MemoryGraph(content=model.SerializeToString(), folder=folder)
before = own_bytes("self")
unet = Component("unet", folder, SessionConfig(provider="cpu"), Notices(lambda _: None), memory=memory)
print((own_bytes("self") - before) / (2 * count * size))
"""
    found = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 1.5


def test_a_single_file_runs_by_every_way_to_name_it(single: Path, tmp_path: Path) -> None:
    with StableDiffusionPipeline.from_single_file(single, provider="cpu", notify=print) as pipeline:
        expected = np.asarray(
            pipeline("a red circle", negative_prompt="blue", num_inference_steps=2, seed=0).images[0]
        )
        assert pipeline.model.name == "my-model"
    given = ["generate", "a red circle", "-n", "blue", "-m", str(single), "--steps", "2", "--seed", "0"]
    result = CliRunner().invoke(main, [*given, "-o", str(tmp_path / "a.png"), "--provider", "cpu"])
    assert result.exit_code == 0, result.output
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), expected)
    assert read_metadata(tmp_path / "a.png").settings["Model"] == "my-model"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sd2", {"prediction_type": "v_prediction"}),
        ("sdxl", {}),
        ("sdxl-refiner", {}),
    ],
)
def test_single_files_of_each_family_run_as_their_exports_do(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """OpenCLIP's projections are rows of one matrix in the file, so their graphs read from the middle of a tensor."""
    path = made(kind, whole=True).saved(tmp_path / "model.safetensors")
    export_model(path, tmp_path / "exported", target="cpu", **options)
    found = []
    for model, own in ((path, options), (tmp_path / "exported", {})):
        with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=print, **own) as pipeline:
            size = 8 * pipeline.model.capabilities.vae_scale_factor
            call: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np"}
            if kind == "sdxl-refiner":
                given = np.linspace(0, 1, size * size * 3, dtype=np.float32).reshape(size, size, 3)
                call |= {"image": given, "strength": 1.0}
            else:
                call |= {"width": size, "height": size}
            found.append(np.asarray(pipeline("a red circle", negative_prompt="blue", **call).images))
    np.testing.assert_array_equal(*found)


def test_links_into_a_cache_of_blobs_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The hub's cache has links to files that are named by their hashes. ONNX Runtime refuses links that lead out."""
    source, snapshot = checkpoint("sd1"), tmp_path / "snapshots" / "commit"
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / "blobs" / str(number))
        link.symlink_to(os.path.relpath(tmp_path / "blobs" / str(number), link.parent))
    np.testing.assert_array_equal(image(snapshot), image(source))


def test_shards_that_lie_apart_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Weights of one component in two files, one of them a link to another folder."""
    source = checkpoint("sd1")
    folder = shutil.copytree(source, tmp_path / "checkpoint")
    path = folder / "unet" / WEIGHTS["unet"]
    header, data = read_header(path), path.read_bytes()
    arrays = {key: as_array(header, key, data[one.start : one.end]) for key, one in header.tensors.items()}
    names, place = sorted(arrays), "diffusion_pytorch_model-{:05}-of-00002.safetensors"
    halves = (names[::2], names[1::2])
    (tmp_path / "elsewhere").mkdir()
    for number, (half, where) in enumerate(
        zip(halves, (folder / "unet", tmp_path / "elsewhere"), strict=True), 1
    ):
        save_file({key: arrays[key] for key in half}, where / place.format(number))
    (folder / "unet" / place.format(2)).symlink_to(tmp_path / "elsewhere" / place.format(2))
    path.unlink()
    index = {"weight_map": {key: place.format(1 + (key in halves[1])) for key in names}}
    (folder / "unet" / f"{WEIGHTS['unet']}.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(image(folder), image(source))


def test_almost_all_weights_stay_in_the_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    sdxl = made("sdxl", whole=True).saved(tmp_path / "model.safetensors")
    for path, least in ((checkpoint("sd2"), 1.0), (sdxl, 0.99)):
        model = open_direct(path, path=path, target="cpu", name="x")
        for name, piece in model.pieces.items():
            graph = built(model.graph(name))
            loose = sum(array.nbytes for array in graph.values.values())
            whole = sum(piece.tensors[tensor].nbytes for tensor in piece.tensors)
            assert loose <= (1 - least) * whole, name


# --- another VAE -------------------------------------------------------------------------------------------


def test_another_vae_changes_the_image_and_is_in_its_metadata(single: Path, tmp_path: Path) -> None:
    content = {
        name.removeprefix("first_stage_model."): array * np.float32(1 if array.ndim < 2 else 0.9)
        for name, array in made("sd1", whole=True).tensors.items()
        if name.startswith("first_stage_model.")
    }
    save_file(content, tmp_path / "other.safetensors")
    given = ["generate", "a", "-m", str(single), "--steps", "2", "--seed", "0", "--provider", "cpu"]
    told = {}
    for name, more in (("a", []), ("b", ["--vae", str(tmp_path / "other.safetensors")])):
        result = CliRunner().invoke(main, [*given, *more, "-o", str(tmp_path / f"{name}.png")])
        assert result.exit_code == 0, result.output
        told[name] = read_metadata(tmp_path / f"{name}.png").settings.get("VAE")
    assert told == {"a": None, "b": "other.safetensors"}
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    again = ["generate", "--from", str(tmp_path / "b.png"), "-m", str(single), "-o", str(tmp_path / "c.png")]
    result = CliRunner().invoke(main, [*again, "--provider", "cpu"])
    assert result.exit_code != 0
    assert "'VAE'" in result.output
    more = ["--vae", str(tmp_path / "other.safetensors"), "--provider", "cpu"]
    result = CliRunner().invoke(main, [*again, *more])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_goes_beside_a_checkpoint_is_refused_beside_other_models(
    checkpoint: Checkpoint, tiny_model: Path
) -> None:
    for model in (tiny_model, "shapes"):
        with pytest.raises(
            RequestError, match=r"vae is given, but .* has been exported already: leave it out"
        ):
            StableDiffusionPipeline.from_pretrained(model, vae="vae.safetensors", provider="cpu")
    with pytest.raises(RequestError, match="prediction_type is for single files"):
        image(checkpoint("sd1"), prediction_type="epsilon")
    with pytest.raises(RequestError, match=r"vae is 5: expected a path or hub id, such as vae\.safetensors"):
        image(checkpoint("sd1"), vae=5)
    with pytest.raises(RequestError, match="is a folder: open it with from_pretrained"):
        StableDiffusionPipeline.from_single_file(checkpoint("sd1"))


@pytest.mark.parametrize(
    "command", [["benchmark", "--steps", "1", "--time-limit", "0.1"], ["doctor"]], ids=["benchmark", "doctor"]
)
def test_what_goes_beside_a_file_reaches_every_process(command: list[str], tmp_path: Path) -> None:
    """Nothing in the file says what it predicts. Each process that opens it needs the option."""
    content = made("sd2", whole=True)
    vae = {name: one for name, one in content.tensors.items() if name.startswith("first_stage_model.")}
    save_file(vae, tmp_path / "vae.safetensors")
    rest = {name: one for name, one in content.tensors.items() if name not in vae}
    save_file(rest, tmp_path / "sd2.safetensors")
    given = [*command, "-m", str(tmp_path / "sd2.safetensors"), "--size", "64", "--provider", "cpu"]
    without = CliRunner().invoke(main, given)
    assert without.exit_code == 3, without.output
    beside = ["--vae", str(tmp_path / "vae.safetensors"), "--prediction-type", "v_prediction"]
    result = CliRunner().invoke(main, [*given, *beside])
    assert result.exit_code == 0, result.output
    assert "64x64" in result.stdout


# --- checkpoints that do not fit -------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_refused_before_anything_is_loaded(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def changed(name: str, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
        folder = shutil.copytree(checkpoint("sd1"), tmp_path / name)
        path = folder / "unet" / WEIGHTS["unet"]
        header, data = read_header(path), path.read_bytes()
        arrays = {k: as_array(header, k, data[one.start : one.end]) for k, one in header.tensors.items()}
        change(arrays)
        save_file(arrays, path)
        return folder

    with pytest.raises(IntegrityError, match=r"the weights lack conv_in\.bias"):
        image(changed("missing", lambda arrays: arrays.pop("conv_in.bias")))
    with pytest.raises(IntegrityError, match=r"conv_in\.bias is of shape \[3\]: expected \[16\]"):
        image(changed("shape", lambda arrays: arrays.update({"conv_in.bias": np.ones(3, np.float32)})))
    with pytest.raises(UnsupportedModelError, match="the weights have other"):
        image(changed("left", lambda arrays: arrays.update(other=np.ones(3, np.float32))))


def test_damaged_weights_are_said_with_a_remedy(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint")
    path = folder / "unet" / WEIGHTS["unet"]
    data, entry = bytearray(path.read_bytes()), read_header(path).tensors["conv_out.bias"]
    data[entry.start : entry.start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(
        ComponentError, match=r"unet: .*not finite.*download the checkpoint again; sdrt export"
    ):
        image(folder)


def test_files_that_vanish_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, provider="cpu")
    (folder / "unet" / WEIGHTS["unet"]).unlink()
    with pytest.raises(ModelNotFoundError, match=r"unet has no \.safetensors weights"):
        pipeline("a", num_inference_steps=1)


def test_a_lora_is_still_refused_as_what_it_is(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
    save_file({name: np.ones((4, 768), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelNotFoundError, match="is a LoRA for Stable Diffusion 1, not a whole model"):
        image(tmp_path / "a.safetensors")


def test_info_says_what_a_checkpoint_runs_with(checkpoint: Checkpoint, single: Path, tmp_path: Path) -> None:
    named = Path(shutil.copy(single, tmp_path / "sd-turbo.safetensors"))
    for path, words in (
        (checkpoint("sd1"), ("a checkpoint in diffusers' layout", "PNDMScheduler", "50 steps")),
        (checkpoint("sd2"), ("a checkpoint in diffusers' layout", "v_prediction", "50 steps")),
        (single, ("a single-file checkpoint of Stable Diffusion 1, in", "epsilon", "guidance scale 7.5")),
        (named, ("EulerDiscreteScheduler", "1 step, guidance scale 0, because its name says")),
    ):
        result = CliRunner().invoke(main, ["info", str(path)])
        assert result.exit_code == 0, result.output
        assert [word for word in words if word not in result.stdout] == []
    with StableDiffusionPipeline.from_single_file(named, provider="cpu", notify=print) as pipeline:
        defaults = json.loads(CliRunner().invoke(main, ["info", str(named), "--json"]).stdout)["defaults"]
        assert (
            defaults["num_inference_steps"]
            == pipeline("a cat", width=64, height=64).request.num_inference_steps
        )


@pytest.mark.parametrize(
    ("kind", "task"),
    [("sd1", "text to image"), ("sdxl", "text to image"), ("sdxl-refiner", "image to image")],
)
def test_info_says_the_task(kind: str, task: str, tmp_path: Path) -> None:
    """SDXL's refiner finishes the images of another model."""
    path = made(kind, whole=True).saved(tmp_path / "model.safetensors")
    about = json.loads(CliRunner().invoke(main, ["info", str(path), "--json"]).stdout)
    assert (about["problem"], about["task"]) == (None, task)


def test_info_says_why_a_checkpoint_does_not_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    sd2 = made("sd2", whole=True).saved(tmp_path / "sd2.safetensors")
    result = CliRunner().invoke(main, ["info", str(sd2)])
    assert "problem    " in result.stdout
    assert "give --prediction-type v_prediction" in result.stdout
    assert json.loads(CliRunner().invoke(main, ["info", str(sd2), "--json"]).stdout)["scheduler"] is None
    hashes = CliRunner().invoke(main, ["info", str(checkpoint("sd1")), "--verify"])
    assert hashes.exit_code == 2
    assert "is a checkpoint, which has no hashes: expected a model folder" in hashes.output


# --- refiners ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Stable Diffusion 2, which does not say what it predicts."""
    return made("sd2", whole=True).saved(tmp_path_factory.mktemp("second") / "second.safetensors")


REFINED: dict[str, Any] = {
    "num_inference_steps": 4,
    "seed": 0,
    "output_type": "np",
    "width": 64,
    "height": 64,
}


def test_a_refiner_has_its_own_prediction_type(single: Path, second: Path, tmp_path: Path) -> None:
    images = {}
    with StableDiffusionPipeline.from_pretrained(single, provider="cpu", notify=print) as pipeline:
        for prediction in ("epsilon", "v_prediction"):
            own = StableDiffusionPipeline.from_single_file(
                second, provider="cpu", prediction_type=prediction, notify=print
            )
            expected = pipeline("a cat", refiner=own, refiner_switch=0.5, **REFINED).images
            made = pipeline(
                "a cat",
                refiner=str(second),
                refiner_switch=0.5,
                refiner_prediction_type=prediction,
                **REFINED,
            )
            np.testing.assert_array_equal(made.images, expected)
            images[prediction] = expected
    assert np.abs(images["epsilon"] - images["v_prediction"]).max() > 0.01
    options = ["-m", str(single), "--refiner", str(second), "-W", "64", "-H", "64", "--steps", "4", "-q"]
    call = ["--refiner-switch", "0.5", "--refiner-prediction-type", "v_prediction", "-s", "0"]
    done = CliRunner().invoke(main, ["generate", "a cat", *options, *call, "-o", str(tmp_path / "out.png")])
    assert done.exit_code == 0, done.output
    from PIL import Image

    written = np.asarray(Image.open(tmp_path / "out.png"), np.float64) / 255
    assert np.abs(written - images["v_prediction"][0]).max() < 1 / 255


def test_a_refiner_has_its_own_configs(single: Path, tmp_path: Path) -> None:
    """No tensor tells the number of heads."""
    config = open_direct(single, path=single, target="cpu", name="m").component_config("unet")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"attention_head_dim": 4}))
    with StableDiffusionPipeline.from_pretrained(single, provider="cpu", notify=print) as pipeline:
        plain = pipeline("a cat", **REFINED).images
        refined = pipeline(
            "a cat", refiner=single, refiner_config=tmp_path, refiner_switch=0.5, **REFINED
        ).images
        alone = pipeline("a cat", refiner=single, refiner_switch=0.5, **REFINED).images
    assert np.abs(refined - plain).max() > 1e-3
    np.testing.assert_array_equal(alone, plain)


def test_the_first_models_own_file_needs_nothing_again(second: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.safetensors"
    linked.symlink_to(second)
    options = {"prediction_type": "v_prediction", "provider": "cpu", "notify": print}
    with StableDiffusionPipeline.from_pretrained(second, **options) as pipeline:
        expected = pipeline("a cat", **REFINED).images
        made = pipeline("a cat", refiner=linked, refiner_switch=0.5, **REFINED).images
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            [],
            "--refiner: {second} is a checkpoint of Stable Diffusion 2, and does not say whether it predicts",
        ),
        ([], ": give --refiner-prediction-type v_prediction for"),
        (["--refiner-config", "owner/nope"], "--refiner-config: hub model 'owner/nope' is not in the cache"),
        (["--refiner-config", ""], "--refiner-config is '': expected a path or hub id"),
        (["--refiner", "owner/nope"], "--refiner: hub model 'owner/nope' is not in the cache"),
        (["--refiner", "no.safetensors"], "--refiner: there is no file no.safetensors"),
        (
            ["--refiner", "shapes", "--refiner-prediction-type", "epsilon"],
            "--refiner-prediction-type is given, but shapes has been exported already: leave it out, or export the "
            "checkpoint with its own --prediction-type",
        ),
        (
            ["--refiner", "{bare}"],
            "but has no vae: give one with --vae FILE to sdrt export, and pass the exported folder as the refiner",
        ),
    ],
    ids=str,
)
def test_a_refiner_that_cannot_be_opened_names_its_own_options(
    options: list[str], words: str, single: Path, second: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(made("sd1", whole=True).without("first_stage_model."), bare)
    paths = {"second": second, "bare": bare}
    own = [one.format(**paths) for one in options]
    chosen = ["--refiner", str(second)] if "--refiner" not in own else []
    common = ["-m", str(single), "-q", "-o", str(tmp_path / "out.png")]
    done = CliRunner().invoke(main, ["generate", "a cat", *common, *chosen, *own])
    assert done.exit_code in (2, 3)
    assert f"{words.format(**paths)}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_beside_an_open_refiner_is_refused(single: Path) -> None:
    with StableDiffusionPipeline.from_pretrained(single, provider="cpu", notify=print) as pipeline:
        for name in ("refiner_config", "refiner_prediction_type"):
            with pytest.raises(RequestError, match=f"{name} is given, but the refiner is a pipeline"):
                pipeline("a cat", refiner=pipeline, **{name: "epsilon"})


# --- targets -----------------------------------------------------------------------------------------------------


def built(source: Any) -> MemoryGraph:
    assert source is not None
    graph = source.build()
    assert isinstance(graph, MemoryGraph)
    return graph


def weights(graph: MemoryGraph) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of a graph in memory as ONNX Runtime reads them, in float32."""
    for tensor in onnx.load_from_string(graph.content).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {one.key: one.value for one in tensor.external_data}
        if tensor.name in graph.values:
            value = graph.values[tensor.name]
        else:
            data = (graph.folder / entries["location"]).read_bytes()
            offset, length = int(entries["offset"]), int(entries["length"])
            raw = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            raw.raw_data = data[offset : offset + length]
            value = numpy_helper.to_array(raw)
        assert value.shape == tuple(tensor.dims)
        yield tensor.name, value.astype(np.float32)


def test_the_cuda_graph_is_the_exported_one_with_the_same_weights(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    export_model(checkpoint("sd2"), tmp_path / "cuda", target="cuda")
    path = checkpoint("sd2")
    model = open_direct(path, path=path, target="cpu", name="x").for_target("cuda")
    assert model.target == "cuda"
    for name in ("unet", "text_encoder", "vae_decoder"):
        exported = onnx.load(tmp_path / "cuda" / name / "model.onnx")
        graph = built(model.graph(name))
        own = onnx.load_from_string(graph.content).graph
        names = {one.name for one in own.initializer if one.external_data}
        # ONNX Runtime folds these when it loads the graph.
        kept = [node for node in own.node if node.op_type != "Cast" or node.input[0] not in names]
        assert [node.op_type for node in kept] == [node.op_type for node in exported.graph.node]
        expected = {one.name: numpy_helper.to_array(one) for one in exported.graph.initializer}
        for key, value in weights(graph):
            stored = expected[key]
            np.testing.assert_array_equal(value.astype(stored.dtype), stored, err_msg=key)


def test_components_in_float16_have_graphs_in_float32_for_what_overflows(checkpoint: Checkpoint) -> None:
    path = checkpoint("sd1")
    half = open_direct(path, path=path, target="cuda", name="x")
    wide = open_direct(path, path=path, target="cpu", name="x")
    for kind in (WHOLE_GRAPH.widened, STAGES_GRAPH.widened):
        assert half.graph("vae_decoder", kind) is not None
        assert wide.graph("vae_decoder", kind) is None
    assert half.graph("unet", STAGES_GRAPH.widened) is None
    assert half.weights("unet").dtype == "float16"
    types = {
        one.type.tensor_type.elem_type
        for one in onnx.load_from_string(built(half.graph("unet", WHOLE_GRAPH.widened)).content).graph.output
    }
    assert types == {onnx.TensorProto.FLOAT}
