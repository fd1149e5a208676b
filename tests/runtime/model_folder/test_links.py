"""Model folders in which links lead elsewhere, as in caches and where weights lie on another disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import IntegrityError, StableDiffusionPipeline
from sdrt.onnx import create_session

CALL: dict[str, Any] = {"num_inference_steps": 1, "width": 64, "height": 64, "seed": 1, "output_type": "np"}


def move(path: Path, target: Path) -> None:
    """Move a file to `target`, and leave a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    path.symlink_to(target)


def weights_elsewhere(model: Path, elsewhere: Path) -> None:
    for path in sorted(model.rglob("*.onnx_data")):
        move(path, elsewhere / path.parent.name / "weights.bin")


def graphs_and_weights_apart(model: Path, elsewhere: Path) -> None:
    for path in sorted([*model.rglob("*.onnx"), *model.rglob("*.onnx_data")]):
        move(path, elsewhere / path.suffix[1:] / path.parent.name / f"x-{path.name}")


def graphs_elsewhere_with_weights(model: Path, elsewhere: Path) -> None:
    """Only the graph is linked, and the weights lie beside the real one."""
    for path in sorted(model.rglob("*.onnx_data")):
        (elsewhere / path.parent.name).mkdir(parents=True)
        shutil.move(path, elsewhere / path.parent.name / path.name)
    for path in sorted(model.rglob("*.onnx")):
        move(path, elsewhere / path.parent.name / path.name)


def hub_cache(model: Path, elsewhere: Path) -> None:
    """All files are blobs in one folder, named by their hashes."""
    for number, path in enumerate(sorted(model.rglob("*"))):
        if path.is_file():
            move(path, elsewhere / "blobs" / f"{number:064x}")


def component_elsewhere(model: Path, elsewhere: Path) -> None:
    for name in ("vae_decoder", "unet"):
        shutil.move(model / name, elsewhere / name)
        (model / name).symlink_to(elsewhere / name)


def model_elsewhere(model: Path, elsewhere: Path) -> None:
    shutil.move(model, elsewhere / "real")
    model.symlink_to(elsewhere / "real")


LAYOUTS = (
    *(weights_elsewhere, graphs_and_weights_apart, graphs_elsewhere_with_weights, hub_cache),
    *(component_elsewhere, model_elsewhere),
)


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> np.ndarray:
    return StableDiffusionPipeline.from_pretrained(tiny_model, verify=False)("a", **CALL).images


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("low_vram", [False, True])
def test_it_runs(
    model_copy: Path,
    tmp_path: Path,
    layout: Callable[[Path, Path], None],
    low_vram: bool,
    expected: np.ndarray,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    layout(model_copy, tmp_path / "elsewhere")
    pipeline = StableDiffusionPipeline.from_pretrained(model_copy, low_vram=low_vram)
    np.testing.assert_allclose(pipeline("a", **CALL).images, expected, atol=1e-5 if low_vram else 0)


def test_hashes_are_those_of_the_files_that_links_lead_to(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights_elsewhere(model, tmp_path / "elsewhere")
    StableDiffusionPipeline.from_pretrained(model)("a", **CALL)
    target = (model / "vae_decoder" / "model.onnx_data").resolve()
    data = bytearray(target.read_bytes())
    data[100] ^= 1
    target.write_bytes(data)
    with pytest.raises(IntegrityError, match="is damaged: its sha256"):
        StableDiffusionPipeline.from_pretrained(model)("a", **CALL)


def test_a_link_to_nothing_is_named(model_copy: Path, tmp_path: Path) -> None:
    (model_copy / "unet" / "model.onnx").unlink()
    (model_copy / "unet" / "model.onnx").symlink_to(tmp_path / "gone")
    with pytest.raises(
        IntegrityError, match=r"unet/model\.onnx is a link to .*gone, which does not exist: copy"
    ):
        StableDiffusionPipeline.from_pretrained(model_copy)


@pytest.mark.parametrize("knows", [True, False])
def test_a_graph_s_own_path_to_elsewhere_is_refused(
    model_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    """A stranger's graph must not read files outside of its folder. The file is there, and it is not damaged."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(create_session, "can_pass_weights", lambda: knows)
    graph = model_copy / "vae_decoder" / "model.onnx"
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../elsewhere"
    graph.write_bytes(model.SerializeToString())
    shutil.move(model_copy / "vae_decoder" / "model.onnx_data", tmp_path / "elsewhere")
    pipeline = StableDiffusionPipeline.from_pretrained(model_copy, vae_tiling=False)
    with pytest.raises(
        IntegrityError, match="outside its folder, which ONNX Runtime does not read"
    ) as caught:
        pipeline("a", **CALL)
    assert "damaged" not in str(caught.value)
    assert "copy that file into the folder" in str(caught.value.fits)


def test_without_the_means_the_error_says_what_to_do(
    model_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with older versions of ONNX Runtime."""
    monkeypatch.setattr(create_session, "can_pass_weights", lambda: False)
    weights_elsewhere(model_copy, tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="copy that file into the folder in place of a link") as caught:
        StableDiffusionPipeline.from_pretrained(model_copy)("a", **CALL)
    assert caught.value.component in ("text_encoder", "unet", "vae_decoder")
