"""The embedded model in diffusers: its weights, restored from the graphs, give the image that sdrt gives."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdrt import StableDiffusionPipeline

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CALLS: dict[str, dict[str, Any]] = {
    "default": {"prompt": "a red circle"},
    "two things": {
        "prompt": "a small blue star left of a large yellow ring on a black background",
        "num_inference_steps": 20,
    },
    "negative": {"prompt": "a circle", "negative_prompt": "red", "num_inference_steps": 20},
    "strong": {"prompt": "a green heart", "guidance_scale": 7.5, "num_inference_steps": 20},
    "unguided": {"prompt": "a green heart", "guidance_scale": 1.0, "num_inference_steps": 20},
    "wide": {"prompt": "a purple cross", "width": 192, "height": 128, "num_inference_steps": 20},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """diffusers' pipeline of the restored checkpoint, in float32."""
    import diffusers

    from sdrt_export.restore import restore_checkpoint

    folder = tmp_path_factory.mktemp("restored") / "shapes"
    restore_checkpoint("shapes", folder)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def shapes() -> Iterator[StableDiffusionPipeline]:
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None) as pipeline:
        yield pipeline


@pytest.mark.parametrize("name", CALLS)
def test_the_same_seed_gives_the_same_image(
    reference: Any, shapes: StableDiffusionPipeline, name: str
) -> None:
    # The model's own default is not diffusers'.
    options = {"guidance_scale": 3.0} | CALLS[name]
    expected = reference(**options, generator=torch.Generator("cpu").manual_seed(7)).images[0]
    got = shapes(**CALLS[name], seed=7).images[0]
    difference = np.abs(np.asarray(expected, dtype=int) - np.asarray(got, dtype=int))
    assert difference.max() <= 2
    assert np.asarray(got).std() > 5  # not an empty image beside an empty image


def test_the_configs_are_those_of_the_recipe(reference: Any) -> None:
    from sdrt_models.shapes.architecture import SCHEDULER, TEXT_ENCODER, UNET, VAE

    for module, config in (
        (reference.unet, UNET),
        (reference.vae, VAE),
        (reference.text_encoder, TEXT_ENCODER),
    ):
        made = module.config if isinstance(module.config, dict) else module.config.to_dict()
        for key, value in config.items():
            assert made[key] == (list(value) if isinstance(value, tuple) else value), key
    for key, value in SCHEDULER.items():
        assert key.startswith("_") or reference.scheduler.config[key] == value, key


def _weights(graph: Any) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """The weights that a graph has from its checkpoint: type, shape and a hash of the values, by name."""
    values = ((name, value.const_value.numpy()) for name, value in graph.initializers.items())
    return {
        name: (str(value.dtype), value.shape, sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
        for name, value in values
        if name.endswith((".weight", ".bias"))
    }


def test_nothing_of_the_checkpoint_is_lost(tmp_path: Path) -> None:
    """Exported again in half the bytes, the restored checkpoint gives the embedded weights."""
    import onnx_ir as ir

    import sdrt_models
    from sdrt_export import export_model
    from sdrt_export.components import COMPONENTS
    from sdrt_export.restore import restore_checkpoint

    restore_checkpoint("shapes", tmp_path / "shapes")
    export_model(tmp_path / "shapes", tmp_path / "model", dtype="fp16", verify=True)
    for name in COMPONENTS:
        again, kept = (
            ir.load(folder / name / "model.onnx").graph
            for folder in (tmp_path / "model", sdrt_models.path("shapes"))
        )
        assert _weights(kept)
        assert _weights(again) == _weights(kept)
