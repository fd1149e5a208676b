"""Images with LoRAs against diffusers with PEFT: at most one level of 255 apart, from exports and from checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.adapters import write_lora

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
    # peft warns of a second adapter.
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
]

LEVEL = 1 / 255
CALL: Mapping[str, Any] = {
    "prompt": "a photo of an astronaut riding a horse on mars",
    "negative_prompt": "blurry",
    "num_inference_steps": 6,
    "output_type": "np",
    "height": 48,
    "width": 72,
}
ENCODERS = ("text_encoder", "text_encoder_2")
WEIGHTS: list[tuple[list[str], list[Any]]] = [
    (["a"], [1.0]),
    (["a", "b"], [0.5, -0.25]),
    (["b"], [{"unet": 0.5, "text_encoder": 0.25, "text_encoder_2": 1.5}]),
]


@pytest.fixture(params=["sd1", "xl"])
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def theirs(checkpoint: Callable[[str], Path], variant: str) -> Iterator[Any]:
    """diffusers' pipeline, which nothing else uses."""
    made = diffusers.DiffusionPipeline.from_pretrained(checkpoint(variant))
    made.set_progress_bar_config(disable=True)
    yield made
    made.unload_lora_weights()


@pytest.fixture(params=["checkpoint", "export"])
def ours(
    request: pytest.FixtureRequest,
    checkpoint: Callable[[str], Path],
    sdrt_folder: Callable[[str], Path],
    variant: str,
) -> StableDiffusionPipeline:
    folder = {"checkpoint": checkpoint, "export": sdrt_folder}[request.param](variant)
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, notify=lambda _: None)


@pytest.fixture
def files(ours: StableDiffusionPipeline, tmp_path: Path) -> dict[str, Path]:
    """Two LoRAs, for the U-Net and every text encoder."""
    parts = [part for part in ("unet", *ENCODERS) if ours.model.has(part)]
    shapes = {part: ours.model.parameters(part) for part in parts}
    return {
        name: write_lora(tmp_path / f"{name}.safetensors", shapes, seed=seed, scale=0.15)
        for seed, name in enumerate("ab")
    }


@pytest.mark.full
def test_images_with_loras(ours: StableDiffusionPipeline, theirs: Any, files: dict[str, Path]) -> None:
    base = ours(seed=0, **CALL).images
    for name, file in files.items():
        ours.load_lora_weights(file, adapter_name=name)
        theirs.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
        assert ours.get_active_adapters() == theirs.get_active_adapters() == [name]
    for names, weights in WEIGHTS:
        own = [_own(one, ours) for one in weights]
        ours.set_adapters(names, own)
        theirs.set_adapters(names, own)
        generator = torch.Generator("cpu").manual_seed(0)
        expected = theirs(generator=generator, **CALL).images
        got = ours(seed=0, **CALL).images
        assert np.abs(got - base).max() > 10 * LEVEL
        assert np.abs(got - expected).max() <= LEVEL
    for pipeline in (ours, theirs):
        pipeline.set_adapters(["a", "b"])
        pipeline.delete_adapters(["b"])
    assert ours.get_active_adapters() == theirs.get_active_adapters() == ["a"]
    ours.unload_lora_weights()
    np.testing.assert_array_equal(ours(seed=0, **CALL).images, base)


def _own(weights: Any, pipeline: StableDiffusionPipeline) -> Any:
    """Weights of the components that the model has."""
    if not isinstance(weights, dict):
        return weights
    return {name: one for name, one in weights.items() if pipeline.model.has(name)}
