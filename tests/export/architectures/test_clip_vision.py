"""CLIP's vision encoder and the safety checker beside transformers and diffusers, on random weights of odd configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.clip_vision import ClipVisionConfig, vision_config
from sdrt_export.components import Component
from sdrt_export.components.image_encoder import IMAGE_ENCODER, SAFETY_CHECKER
from sdrt_export.evaluator import Evaluator
from sdrt_export.targets import TARGETS
from tests.export.built import config_of, write
from tests.parity.checkpoints import randomise

# float32 sums in another order. A swapped norm or a lost bias makes 1e-2 and more.
LIMIT = 1e-6
# Not square numbers of patches only, a size that patches do not fill, one layer, other channels.
CONFIGS: dict[str, dict[str, Any]] = {
    "usual": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
    | {"image_size": 28, "patch_size": 14, "projection_dim": 16},
    "odd": {"hidden_size": 30, "intermediate_size": 50, "num_attention_heads": 3, "num_hidden_layers": 2}
    | {"image_size": 23, "patch_size": 5, "projection_dim": 7, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
    "one layer": {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    | {"image_size": 6, "patch_size": 6, "projection_dim": 8, "num_channels": 4},
}


def graph_outputs(
    component: Component, module: Any, target: str, folder: Path, feeds: Mapping[str, Any]
) -> list[Any]:
    """What a target's graph of `module` makes of `feeds`."""
    graph = write(component, module, TARGETS[target], folder)
    assert graph.sources == {name: one.shape for name, one in module.state_dict().items()}
    names, path = component.outputs(config_of(module)), folder / "model.onnx"
    if target == "cuda":
        return list(Evaluator(path).run(dict(feeds), names))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(names, dict(feeds)))


def assert_close(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0.01
    assert np.abs(ours - theirs).max() <= LIMIT * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONFIGS)
def test_image_encoder_equals_transformers(name: str, target: str, tmp_path: Path) -> None:
    config = transformers.CLIPVisionConfig(**CONFIGS[name])
    module = randomise(transformers.CLIPVisionModelWithProjection(config), 3)
    for size in (0, 1):
        feeds = IMAGE_ENCODER.examples(config_of(module), size)
        embeds, penultimate = graph_outputs(IMAGE_ENCODER, module, target, tmp_path / str(size), feeds)
        # In float64: torch's own rounding depends on its threads, and is as large as the limit.
        pixels = torch.from_numpy(feeds["pixel_values"]).double()
        with torch.no_grad():
            theirs = module.double()(pixels, output_hidden_states=True)
        module.float()
        assert_close(embeds, theirs.image_embeds.numpy())
        assert_close(penultimate, theirs.hidden_states[-2].numpy())


def checker(name: str) -> Any:
    """A safety checker with random weights."""
    config = transformers.CLIPConfig(
        vision_config=CONFIGS[name], projection_dim=CONFIGS[name]["projection_dim"]
    )
    return randomise(StableDiffusionSafetyChecker(config), 4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONFIGS)
def test_safety_checker_equals_diffusers(name: str, target: str, tmp_path: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import cosine_distance

    module = checker(name)
    feeds = SAFETY_CHECKER.examples(config_of(module), 0)
    special, concepts, *thresholds = graph_outputs(SAFETY_CHECKER, module, target, tmp_path / "model", feeds)
    with torch.no_grad():
        pooled = module.vision_model(torch.from_numpy(feeds["clip_input"]))[1]
        embeds = module.visual_projection(pooled)
        assert_close(special, cosine_distance(embeds, module.special_care_embeds).numpy())
        assert_close(concepts, cosine_distance(embeds, module.concept_embeds).numpy())
    np.testing.assert_array_equal(thresholds[0], module.special_care_embeds_weights.numpy())
    np.testing.assert_array_equal(thresholds[1], module.concept_embeds_weights.numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu': expected quick_gelu or gelu"),
        ({"model_type": "siglip_vision_model"}, "model_type is 'siglip_vision_model'"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5: expected a divisor of hidden_size, 32"),
        ({"patch_size": 29}, "patch_size is 29: expected at most image_size, 28"),
        ({"image_size": [224, 224]}, "image_size is "),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small'"),
        ({"num_registers": 4}, "num_registers is 4: expected a key that sdrt knows"),
    ],
)
def test_unsupported_values_of_a_vision_config_are_refused(change: dict[str, Any], message: str) -> None:
    values = transformers.CLIPVisionConfig(**CONFIGS["usual"]).to_dict()
    assert ClipVisionConfig.of(values).width == 32
    with pytest.raises(UnsupportedModelError) as caught:
        ClipVisionConfig.of(values | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"vision_config": {"hidden_size": 24, "projection_dim": 99}, "projection_dim": 16},
        {"vision_config_dict": {"hidden_size": 24}, "vision_config": {"patch_size": 14}},
        {"vision_config": None, "vision_config_dict": {"num_hidden_layers": 2}, "projection_dim": 768},
        {},
    ],
)
def test_the_vision_part_of_a_clip_config_is_transformers(parts: dict[str, Any]) -> None:
    """Files of 2022 have the vision encoder's config twice, and the second one counts."""
    ours = ClipVisionConfig.of(vision_config({"model_type": "clip", **parts}, "safety_checker"))
    config = transformers.CLIPConfig(**parts)
    theirs = ClipVisionConfig.of(config.vision_config.to_dict() | {"projection_dim": config.projection_dim})
    assert ours == theirs


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model_type": "clip_vision_model"},
            "safety_checker/config.json: model_type is 'clip_vision_model'",
        ),
        ({"vision_config": [1]}, "safety_checker/config.json: vision_config is [1]: expected an object"),
        ({"threshold_shift": 1}, "threshold_shift is 1: expected a key that sdrt knows"),
    ],
)
def test_unsupported_values_of_a_checkers_config_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        vision_config(values, "safety_checker")
    assert message in str(caught.value)
