"""LoRAs on tuned graphs: the images of untuned ones, bit for bit, for checkpoints and exported folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.onnx.tuned import TunedGraph, every_tuned_graph
from sdrt_export import export_model
from tests.adapters import write_lora
from tests.made_once import MadeOnce
from tests.parity.ip_adapters import adapter_file, image_encoder_folder

Made = dict[str, np.ndarray]


@pytest.fixture
def in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each graph with a LoRA could be changed where it was tuned. The cache is empty at first."""
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "cache"))
    seen: list[bool] = []
    changed = TunedGraph.changed

    def spied(self: TunedGraph, values: Made) -> object:
        found = changed(self, values)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(TunedGraph, "changed", spied)
    return seen


def opened(model: Path, tune: bool | None = None, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        model, provider="cpu", tune=tune, notify=lambda _: None, **options
    )


def images(model: Path, lora: Path, tune: bool | None) -> list[np.ndarray]:
    """Without the LoRA, with it, and without it again."""
    with opened(model, tune) as pipeline:
        return [
            np.asarray(
                pipeline("a cat", num_inference_steps=2, width=64, height=64, seed=0, **given).images[0]
            )
            for given in ({}, {"lora": f"{lora}:0.7"}, {})
        ]


@pytest.fixture(scope="module")
def exported(checkpoint: Callable[[str], Path], made_once: MadeOnce) -> Callable[[str], Path]:
    def get(dtype: str) -> Path:
        return (
            made_once(
                f"tuned/{dtype}",
                lambda folder: export_model(checkpoint("sd1"), folder / "model", target="cpu", dtype=dtype),
            )
            / "model"
        )

    return get


@pytest.mark.full
@pytest.mark.parametrize("kind", ["fp32", "fp16", "checkpoint"])
def test_a_lora_changes_the_tuned_graph(
    kind: str,
    checkpoint: Callable[[str], Path],
    exported: Callable[[str], Path],
    tmp_path: Path,
    in_place: list[bool],
) -> None:
    model = checkpoint("sd1") if kind == "checkpoint" else exported(kind)
    shapes = {part: opened(model).model.parameters(part) for part in ("unet", "text_encoder")}
    lora = write_lora(tmp_path / "lora.safetensors", shapes)
    plain = images(model, lora, False)
    assert not np.array_equal(plain[0], plain[1])
    for tune in (True, None):
        for one, other in zip(plain, images(model, lora, tune), strict=True):
            np.testing.assert_array_equal(one, other)
    assert in_place
    assert all(in_place)
    assert {one.folder.name.rpartition("-")[0] for one in every_tuned_graph()} >= {"unet", "text_encoder"}


@pytest.fixture(scope="module")
def prompts(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two IP-Adapters of the same shapes, with an image encoder beside them."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
    folder = tmp_path_factory.mktemp("prompts")
    image_encoder_folder(folder / "image_encoder")
    return [adapter_file(folder / f"{seed}.safetensors", unet, "base", seed) for seed in (60, 61)]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["fp32", "checkpoint"])
def test_each_ip_adapter_has_its_own_tuned_graph(
    kind: str,
    checkpoint: Callable[[str], Path],
    exported: Callable[[str], Path],
    prompts: list[Path],
    in_place: list[bool],
) -> None:
    model = checkpoint("sd1") if kind == "checkpoint" else exported(kind)
    drawn = [Image.new("RGB", (40, 40), color) for color in ((200, 30, 20), (20, 90, 220))]

    def seen(adapters: list[Path], tune: bool) -> np.ndarray:
        with opened(model, tune, ip_adapter=adapters) as pipeline:
            given = {"ip_adapter_image": drawn, "ip_adapter_scale": [0.9, 0.2]}
            return np.asarray(pipeline("a cat", num_inference_steps=1, seed=0, **given).images[0])

    for adapters in (prompts, prompts[::-1], prompts[:1] * 2):
        np.testing.assert_array_equal(seen(adapters, True), seen(adapters, False))
