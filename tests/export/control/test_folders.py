"""ControlNets in exported folders of every target, beside folders that were exported without, and directly."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from sdrt.model_folder.embedded import embedded_path
from sdrt.onnx.buffers import Bound
from sdrt.request.request import Request
from sdrt_export import export_model, open_direct
from tests.adapters import write_lora
from tests.export.control.images import control_image, made
from tests.parity.checkpoints import randomise

Checkpoint = Callable[[str], Path]


@pytest.mark.full
@pytest.mark.parametrize(
    ("target", "dtype", "tolerance"),
    [("cpu", "fp32", 0.0), ("cpu", "fp16", 0.05), ("portable", "fp32", 1e-4), ("portable", "fp16", 0.05)],
)
def test_an_exported_folder(
    target: str,
    dtype: str,
    tolerance: float,
    checkpoint: Checkpoint,
    controlnets: list[Path],
    direct: np.ndarray,
    tmp_path: Path,
) -> None:
    export_model(
        checkpoint("sd1"),
        tmp_path / "model",
        target=target,
        dtype=dtype,
        controlnet=controlnets,
        verify=target == "portable",
    )
    found = made(tmp_path / "model", [], control_image=[control_image()] * 2)
    assert float(np.abs(found - direct).max()) <= tolerance
    manifest = json.loads((tmp_path / "model" / "sdrt.json").read_text())
    assert {"controlnet", "controlnet_2"} <= set(manifest["components"])
    assert "unet/controlled.onnx" in manifest["files"]
    assert "unet/controlled.onnx_data" not in manifest["files"]


def test_a_folder_for_cuda_has_the_graphs(
    checkpoint: Checkpoint, controlnets: list[Path], tmp_path: Path
) -> None:
    export_model(checkpoint("sd1"), tmp_path / "model", target="cuda", controlnet=controlnets[:1])
    names = {path.name for path in (tmp_path / "model" / "unet").iterdir()}
    assert {"controlled.onnx", "controlled_fp32.onnx", "model.onnx_data"} <= names
    assert "controlled.onnx_data" not in names
    assert (tmp_path / "model" / "controlnet" / "model_fp32.onnx").is_file()


def test_a_folder_that_was_exported_without(plain: Path, controlnets: list[Path], direct: np.ndarray) -> None:
    before = sorted(plain.rglob("*"))
    found = made(plain, controlnets, control_image=[control_image()] * 2)
    np.testing.assert_array_equal(found, direct)
    assert sorted(plain.rglob("*")) == before


def test_without_a_control_image_nothing_changes(
    plain: Path, controlnets: list[Path], checkpoint: Checkpoint
) -> None:
    np.testing.assert_array_equal(made(plain, controlnets), made(plain, []))
    np.testing.assert_array_equal(made(checkpoint("sd1"), controlnets), made(checkpoint("sd1"), []))


def test_at_a_scale_of_zero_the_image_is_that_without(plain: Path, controlnets: list[Path]) -> None:
    """The graph adds zeros, which changes no bit."""
    given: dict[str, Any] = {"control_image": control_image(), "height": 48, "width": 64}
    found = made(plain, controlnets[:1], controlnet_conditioning_scale=0.0, **given)
    np.testing.assert_array_equal(found, made(plain, [], height=48, width=64))


def test_loading_opens_what_the_request_needs(plain: Path, controlnets: list[Path]) -> None:
    """The first step loads nothing. A ControlNet whose scale is 0 is not needed."""
    with StableDiffusionPipeline.from_pretrained(plain, controlnet=controlnets, provider="cpu") as pipeline:
        request = Request(
            prompt="", control_image=[control_image()] * 2, controlnet_conditioning_scale=[1, 0], seed=0
        )
        planned = pipeline.plan(request)
        pipeline.load(planned)
        loaded = pipeline.graphs
        assert sorted(one.name for one in loaded) == ["controlnet", "text_encoder", "unet", "vae_decoder"]
        next(pipeline.stream(planned))
        assert pipeline.graphs == loaded


def test_residuals_that_are_not_copied_are_the_same(
    plain: Path, controlnets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a second run, which has the buffers of the first, and after a run without a ControlNet."""
    call: dict[str, Any] = {"num_inference_steps": 3, "seed": 0, "output_type": "np"}
    with StableDiffusionPipeline.from_pretrained(
        plain, controlnet=controlnets[:1], provider="cpu", notify=lambda _: None
    ) as pipeline:
        first = pipeline("a", control_image=control_image(), control_guidance_end=0.7, **call).images
        other = pipeline("a", control_image=control_image(), controlnet_conditioning_scale=0, **call).images
        again = pipeline("a", control_image=control_image(), control_guidance_end=0.7, **call).images
        monkeypatch.setattr(Bound, "write_to", lambda *_: False)
        copied = pipeline("a", control_image=control_image(), control_guidance_end=0.7, **call).images
    np.testing.assert_array_equal(first, copied)
    np.testing.assert_array_equal(again, copied)
    assert np.abs(other - copied).max() > 0.02


def test_tiles_and_low_vram_see_their_own_part(plain: Path, controlnets: list[Path]) -> None:
    call: dict[str, Any] = {"control_image": control_image(), "guess_mode": True}
    with StableDiffusionPipeline.from_pretrained(
        plain, controlnet=controlnets[:1], provider="cpu", low_vram=True, notify=lambda _: None
    ) as pipeline:
        low = pipeline("a red circle", num_inference_steps=2, seed=0, output_type="np", **call).images
    assert np.abs(np.asarray(low) - made(plain, controlnets[:1], **call)).max() < 1e-4
    # One window as large as the image is the image.
    whole = made(plain, controlnets[:1], **call)
    windows = made(plain, controlnets[:1], tile_size=64, **call)
    assert np.abs(windows - whole).max() < 1e-4
    assert np.abs(made(plain, controlnets[:1], tile_size=32, **call) - whole).max() > 1e-3


def test_loras_change_the_graph_for_controlnets(
    plain: Path, checkpoint: Checkpoint, controlnets: list[Path], direct: np.ndarray, tmp_path: Path
) -> None:
    """In a folder with that graph, in one whose graph is made in memory, and in the checkpoint itself."""
    source, folder = checkpoint("sd1"), tmp_path / "model"
    model = open_direct(source, path=source, target="cpu", name="sd1")
    lora = write_lora(tmp_path / "style.safetensors", {"unet": model.parameters("unet")}, scale=1)
    export_model(source, folder, controlnet=controlnets)
    call: dict[str, Any] = {"control_image": [control_image()] * 2, "num_inference_steps": 2, "seed": 0}
    images = []
    for where, nets in ((source, controlnets), (folder, []), (plain, controlnets)):
        with StableDiffusionPipeline.from_pretrained(
            where, controlnet=nets, provider="cpu", notify=lambda _: None
        ) as pipeline:
            before, changed, after = (
                np.asarray(pipeline("a red circle", output_type="np", **call, **more).images)
                for more in ({}, {"lora": lora}, {"lora": f"{lora}:0"})
            )
        np.testing.assert_array_equal(before, direct)
        np.testing.assert_array_equal(after, direct)
        images.append(changed)
    assert np.abs(images[0] - direct).max() > 0.02
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[2], images[0])


def test_the_size_is_that_of_the_control_image(plain: Path, controlnets: list[Path]) -> None:
    assert made(plain, controlnets[:1], control_image=control_image()).shape == (1, 48, 64, 3)
    assert made(plain, controlnets[:1], control_image=control_image(), width=80).shape == (1, 48, 80, 3)


def test_the_embedded_model(tmp_path: Path) -> None:
    """Its weights are in float16, and an earlier version of sdrt has stored small ones in the graph's own file."""
    config = json.loads((embedded_path("shapes") / "unet" / "config.json").read_text())  # type: ignore[operator]
    known = inspect.signature(diffusers.ControlNetModel.__init__).parameters
    module = diffusers.ControlNetModel(
        **{key: value for key, value in config.items() if key in known},
        conditioning_embedding_out_channels=(4, 6, 8, 10),
    )
    randomise(module, 7).save_pretrained(tmp_path)
    given: dict[str, Any] = {"control_image": control_image(), "height": 64, "width": 64}
    plain = made("shapes", [], height=64, width=64)
    off = made("shapes", [tmp_path], controlnet_conditioning_scale=0, **given)
    # That version's graph adds in another order, which is 1e-7 here.
    assert np.abs(off - plain).max() < 1e-5
    assert np.abs(made("shapes", [tmp_path], **given) - plain).max() > 0.02
