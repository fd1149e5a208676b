"""IP-Adapters in exported folders of every target, beside folders that were exported without, and directly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from sdrt import Request, StableDiffusionPipeline
from sdrt.errors import ModelError, ProviderError, RequestError
from sdrt.onnx.providers import PROVIDERS
from sdrt_export import export_model
from tests.adapters import write_lora
from tests.parity.checkpoints import randomise
from tests.parity.ip_adapters import adapter_file, image_encoder_folder
from tests.parity.t2i_adapters import write_adapter

Checkpoint = Callable[[str], Path]


def prompt_image(number: int = 0) -> Image.Image:
    drawn = Image.new("RGB", (50, 40), (40 * number, 90, 200 - 60 * number))
    ImageDraw.Draw(drawn).ellipse((9, 5 + 4 * number, 33, 30), fill=(250, 60 * number, 30))
    return drawn


def mask(left: bool) -> Image.Image:
    drawn = Image.new("L", (64, 48))
    ImageDraw.Draw(drawn).rectangle((0, 0, 31, 48) if left else (32, 0, 64, 48), fill=255)
    return drawn


@pytest.fixture(scope="module")
def adapters(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and a plus adapter for the checkpoint sd1, with an image encoder beside them."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
    folder = tmp_path_factory.mktemp("adapters")
    image_encoder_folder(folder / "image_encoder")
    return [
        adapter_file(folder / f"{kind}.safetensors", unet, kind, 60 + number)
        for number, kind in enumerate(("base", "plus"))
    ]


def opened(source: Path | str, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(source, provider="cpu", notify=lambda _: None, **options)


CALL: dict[str, Any] = {"prompt": "a lake", "num_inference_steps": 2, "seed": 0, "output_type": "np"}
SEEING: dict[str, Any] = {
    "ip_adapter_image": [prompt_image(0), prompt_image(1)],
    "ip_adapter_scale": [0.6, 0.4],
}
MASKED: dict[str, Any] = {**SEEING, "ip_adapter_masks": [mask(True), mask(False)]}


def made(pipeline: StableDiffusionPipeline, **options: Any) -> np.ndarray:
    return np.asarray(pipeline(**CALL, **options).images)


@pytest.fixture(scope="module")
def direct(checkpoint: Checkpoint, adapters: list[Path]) -> dict[str, np.ndarray]:
    with opened(checkpoint("sd1"), ip_adapter=adapters) as pipeline:
        return {
            "seeing": made(pipeline, **SEEING),
            "masked": made(pipeline, **MASKED),
            "plain": made(pipeline),
        }


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "model"
    export_model(checkpoint("sd1"), folder)
    return folder


@pytest.mark.parametrize(
    ("target", "dtype", "tolerance"),
    [("cpu", "fp32", 0.0), ("cpu", "fp16", 0.05), ("portable", "fp32", 1e-4)],
)
def test_an_exported_folder(
    target: str,
    dtype: str,
    tolerance: float,
    checkpoint: Checkpoint,
    adapters: list[Path],
    direct: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    export_model(
        checkpoint("sd1"),
        folder,
        target=target,
        dtype=dtype,
        ip_adapter=adapters,
        verify=target == "portable",
    )
    with opened(folder) as pipeline:
        assert pipeline.model.ip_adapter_names == ("base", "plus")
        for options, name in ((SEEING, "seeing"), (MASKED, "masked"), ({}, "plain")):
            assert float(np.abs(made(pipeline, **options) - direct[name]).max()) <= tolerance, name
        pipeline.unload_ip_adapter()
        with pytest.raises(RequestError, match="this model has no IP-Adapter"):
            made(pipeline, **SEEING)
        pipeline.load_ip_adapter(adapters)
        assert float(np.abs(made(pipeline, **SEEING) - direct["seeing"]).max()) <= tolerance
    manifest = json.loads((folder / "sdrt.json").read_text())
    assert {"ip_adapter", "ip_adapter_2", "image_encoder"} <= set(manifest["components"])
    assert "unet/prompted.onnx" in manifest["files"]
    assert "unet/prompted.onnx_data" not in manifest["files"]


def test_a_folder_for_cuda_has_the_graphs(
    checkpoint: Checkpoint, adapters: list[Path], tmp_path: Path
) -> None:
    export_model(checkpoint("sd1"), tmp_path / "model", target="cuda", ip_adapter=adapters)
    names = {path.name for path in (tmp_path / "model" / "unet").iterdir()}
    assert {"prompted.onnx", "prompted_fp32.onnx", "model.onnx_data"} <= names
    assert (tmp_path / "model" / "image_encoder" / "model_fp32.onnx").is_file()


def test_a_folder_that_was_exported_without(
    plain: Path, adapters: list[Path], direct: dict[str, np.ndarray]
) -> None:
    before = sorted(plain.rglob("*"))
    with opened(plain) as pipeline:
        pipeline.load_ip_adapter(adapters)
        np.testing.assert_array_equal(made(pipeline, **SEEING), direct["seeing"])
        np.testing.assert_array_equal(made(pipeline, **MASKED), direct["masked"])
        np.testing.assert_array_equal(made(pipeline), direct["plain"])
    assert sorted(plain.rglob("*")) == before


def test_without_an_effect_the_images_stay_the_same(checkpoint: Checkpoint, adapters: list[Path]) -> None:
    with opened(checkpoint("sd1")) as pipeline:
        expected = made(pipeline)
        pipeline.load_ip_adapter(adapters)
        np.testing.assert_array_equal(made(pipeline), expected)
        np.testing.assert_array_equal(made(pipeline, **{**SEEING, "ip_adapter_scale": 0}), expected)
        assert np.abs(made(pipeline, **SEEING) - expected).max() > 0.01
        pipeline.unload_ip_adapter()
        np.testing.assert_array_equal(made(pipeline), expected)


def test_another_adapter_takes_the_place_of_the_first(checkpoint: Checkpoint, adapters: list[Path]) -> None:
    image = {"ip_adapter_image": prompt_image()}
    with opened(checkpoint("sd1"), ip_adapter=adapters[:1]) as pipeline:
        first = made(pipeline, **image)
        pipeline.load_ip_adapter(adapters[1])
        assert np.abs(made(pipeline, **image) - first).max() > 0.01
        pipeline.load_ip_adapter(adapters[0])
        np.testing.assert_array_equal(made(pipeline, **image), first)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_run_keeps_the_adapter_that_it_was_planned_with(
    checkpoint: Checkpoint, adapters: list[Path], has_begun: bool
) -> None:
    with opened(checkpoint("sd1"), ip_adapter=adapters[:1]) as pipeline:
        call: dict[str, Any] = {**CALL, "ip_adapter_image": prompt_image()}
        expected = pipeline(**call).images
        for change in (lambda: pipeline.load_ip_adapter(adapters[1]), pipeline.unload_ip_adapter):
            pipeline.load_ip_adapter(adapters[0])
            steps = pipeline.stream(Request(**call))
            if has_begun:
                next(steps)
            change()
            *_, result = steps
            np.testing.assert_array_equal(result.images, expected)
        # Nothing of that run is left for calls that come later.
        pipeline.load_ip_adapter(adapters[1])
        assert np.abs(pipeline(**call).images - expected).max() > 0.01


def test_the_scale_of_the_pipeline_counts_in_calls_without_one(
    checkpoint: Checkpoint, adapters: list[Path]
) -> None:
    image = {"ip_adapter_image": prompt_image()}
    with opened(checkpoint("sd1"), ip_adapter=adapters[:1]) as pipeline:
        expected = made(pipeline, **image, ip_adapter_scale=0.3)
        pipeline.set_ip_adapter_scale(0.3)
        np.testing.assert_array_equal(made(pipeline, **image), expected)
        assert pipeline(**CALL, **image).request.ip_adapter_scale == (0.3,)
        with pytest.raises(RequestError, match="has 2 entries for 1 IP-Adapter"):
            pipeline.set_ip_adapter_scale([0.3, 0.4])


@pytest.mark.parametrize("options", [{"low_vram": True}, {"controls": True}], ids=str)
def test_other_ways_to_run(
    options: dict[str, Any],
    checkpoint: Checkpoint,
    plain: Path,
    adapters: list[Path],
    direct: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    if "controls" not in options:
        with opened(checkpoint("sd1"), ip_adapter=adapters, **options) as pipeline:
            np.testing.assert_allclose(made(pipeline, **MASKED), direct["masked"], atol=1e-4)
        return
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
    module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
    randomise(module, 50).save_pretrained(tmp_path / "net")
    nets = [tmp_path / "net", write_adapter(tmp_path / "t2i", "sd1")]
    export_model(checkpoint("sd1"), tmp_path / "both", controlnet=nets, ip_adapter=adapters)
    call = {**MASKED, "control_image": [prompt_image(2)] * 2}
    found = []
    for source, more in (
        (checkpoint("sd1"), {"controlnet": nets, "ip_adapter": adapters}),
        (plain, {"controlnet": nets, "ip_adapter": adapters}),
        (tmp_path / "both", {}),
    ):
        with opened(source, **more) as pipeline:
            found.append((made(pipeline, **call), made(pipeline, **{**call, "ip_adapter_masks": None})))
    for other in found[1:]:
        for one, expected in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(one, expected)


def test_a_lora_changes_the_graph_that_sees_images(
    checkpoint: Checkpoint, plain: Path, adapters: list[Path], tmp_path: Path
) -> None:
    export_model(checkpoint("sd1"), tmp_path / "prompted", ip_adapter=adapters)
    found = []
    for source, more in (
        (checkpoint("sd1"), {"ip_adapter": adapters}),
        (plain, {"ip_adapter": adapters}),
        (tmp_path / "prompted", {}),
    ):
        with opened(source, **more) as pipeline:
            shapes = {"unet": pipeline.model.parameters("unet")}
            lora = write_lora(tmp_path / "a.safetensors", shapes, seed=1, scale=0.15)
            before = made(pipeline, **SEEING)
            pipeline.load_lora_weights(lora)
            found.append((before, made(pipeline, **SEEING), made(pipeline, **MASKED)))
            pipeline.unload_lora_weights()
            np.testing.assert_array_equal(made(pipeline, **SEEING), before)
    assert np.abs(found[0][0] - found[0][1]).max() > 0.01
    for other in found[1:]:
        for one, expected in zip(other, found[0], strict=True):
            np.testing.assert_allclose(one, expected, atol=1e-5)


def test_large_images_and_two_passes(checkpoint: Checkpoint, adapters: list[Path]) -> None:
    """The masks are cut as the windows are, and scaled to the size of each pass."""
    with opened(checkpoint("sd1"), ip_adapter=adapters) as pipeline:
        size = {"width": 128, "height": 64}
        whole = made(pipeline, **MASKED, **size)
        tiled = made(pipeline, **MASKED, **size, tile_size=64)
        assert tiled.shape == whole.shape
        twice = made(pipeline, **MASKED, width=64, height=48, hires_scale=2.0)
        assert twice.shape == (1, 96, 128, 3)


def broken(path: Path, change: Callable[[dict[str, Any]], Any], to: Path) -> Path:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, to)
    return to


def with_nan(tensors: dict[str, Any]) -> None:
    tensors["ip_adapter.3.to_v_ip.weight"][2, 1] = float("nan")


@pytest.mark.parametrize("case", ["nan", "missing", "no encoder", "other encoder", "lora"])
def test_a_failure_leaves_the_pipeline_as_it_was(
    case: str, checkpoint: Checkpoint, adapters: list[Path], tmp_path: Path
) -> None:
    encoder: Path | None = adapters[0].parent / "image_encoder"
    file = tmp_path / "a.safetensors"
    if case == "nan":
        broken(adapters[0], with_nan, file)
    elif case == "no encoder":
        broken(adapters[0], lambda tensors: None, file)
        encoder = None
    elif case == "other encoder":
        broken(adapters[0], lambda tensors: None, file)
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=16, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, projection_dim=8
        )
        encoder = tmp_path / "other"
        CLIPVisionModelWithProjection(config).save_pretrained(encoder)
    with opened(checkpoint("sd1"), ip_adapter=adapters[:1]) as pipeline:
        image = {"ip_adapter_image": prompt_image()}
        expected, model = made(pipeline, **image), pipeline.model
        if case == "lora":
            write_lora(file, {"unet": pipeline.model.parameters("unet")}, seed=1, scale=0.1)
        with pytest.raises(ModelError) as caught:
            pipeline.load_ip_adapter(file, image_encoder=encoder)
        assert "\n" not in str(caught.value)
        assert "expected" in str(caught.value) or "; " in str(caught.value) or ": " in str(caught.value)
        assert pipeline.model is model
        np.testing.assert_array_equal(made(pipeline, **image), expected)


def test_an_image_is_encoded_once(
    checkpoint: Checkpoint, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call with the same image, and the second pass of a call, remember what the encoder saw."""
    from sdrt.run import image_encoder

    computed, outputs = image_encoder._computed, []

    def counted(component: Any, name: str, given: np.ndarray, output: str) -> np.ndarray:
        outputs.append(output)
        return computed(component, name, given, output)

    monkeypatch.setattr(image_encoder, "_computed", counted)
    with opened(checkpoint("sd1"), ip_adapter=adapters) as pipeline:
        first = made(pipeline, **SEEING)
        # The base adapter reads one output, the plus adapter another, and that of zeros too.
        assert outputs.count("image_embeds") == 1
        assert outputs.count("penultimate_hidden_state") == 2
        np.testing.assert_array_equal(made(pipeline, **SEEING), first)
        assert outputs.count("image_embeds") == 1
        assert outputs.count("penultimate_hidden_state") == 2


def test_a_provider_that_compiles_files_has_no_masks(
    checkpoint: Checkpoint, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(checkpoint("sd1"), tmp_path / "model", ip_adapter=adapters)
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], takes_memory=False))
    with opened(tmp_path / "model") as pipeline:
        expected = made(pipeline, **SEEING)
        with pytest.raises(ProviderError, match="leave out ip_adapter_masks"):
            made(pipeline, **MASKED)
        with pytest.raises(RequestError, match="sdrt export --ip-adapter"):
            pipeline.load_ip_adapter(adapters)
        np.testing.assert_array_equal(made(pipeline, **SEEING), expected)
