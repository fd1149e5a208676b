"""Checkpoints that run directly: as their exports do, from every kind of file, with nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import StableDiffusionPipeline
from sdrt.benchmark.memory import own_bytes
from sdrt.cli import main
from sdrt.common.safetensors_file import as_array, read_header
from sdrt.images.metadata import read_metadata
from sdrt_export import export_model, open_direct
from tests.export.checkpoints.ldm_files import made
from tests.export.direct import WEIGHTS, built, image
from tests.safetensors_files import save_file, write_file

Checkpoint = Callable[[str], Path]
Get = Callable[[str], Path]
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
