"""The T2I-Adapter that is built from a config, and the U-Net that takes its features, are diffusers' classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import T2IAdapter, UNet2DConditionModel

from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt_export.architectures.controlnet_config import ControlNetConfig
from sdrt_export.architectures.t2i_adapter import T2IAdapterConfig, t2i_adapter
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.graphs.cuda import CudaLayers
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import FLOAT, HALF, Graph
from sdrt_export.graphs.layers import Layers
from tests.export.architectures.test_controlnet import (
    BASE,
    CONFIGS,
    SIZES,
    UNET,
    UNETS,
    Array,
    added,
    error_of,
    inputs,
    randomised,
    residuals,
    wide,
    written,
)

ADAPTERS: dict[str, dict[str, Any]] = {
    "full": {"channels": [16, 32]},
    "full, as SD 1": {
        "channels": [8, 16, 24, 24],
        "in_channels": 1,
        "num_res_blocks": 1,
        "downscale_factor": 4,
    },
    "xl": {"channels": [16, 32, 32], "adapter_type": "full_adapter_xl", "downscale_factor": 16},
    "xl, as SDXL": {"channels": [8, 16, 24, 24], "adapter_type": "full_adapter_xl", "downscale_factor": 4},
    "light": {"channels": [16, 32], "adapter_type": "light_adapter", "num_res_blocks": 3},
}


def build(config: T2IAdapterConfig, layers: type[Layers], compute: int) -> Graph:
    graph = Graph("controlnet", compute)
    t2i_adapter(config, layers(graph))
    return graph


WRITTEN = [
    (FusedLayers, FLOAT, 2e-6),
    (Layers, FLOAT, 2e-6),
    (CudaLayers, FLOAT, 2e-6),
    (CudaLayers, HALF, 1e-2),
]


@pytest.mark.parametrize(("layers", "compute", "tolerance"), WRITTEN)
@pytest.mark.parametrize("name", ADAPTERS)
def test_it_is_diffusers_t2i_adapter(
    name: str, layers: type[Layers], compute: int, tolerance: float, tmp_path: Path
) -> None:
    """Also where a side is odd, and is halved."""
    torch.manual_seed(0)
    module = randomised(T2IAdapter(**ADAPTERS[name]))
    config, graph = T2IAdapterConfig.of(dict(module.config)), Graph("controlnet", compute)
    t2i_adapter(config, layers(graph))
    assert graph.sources == {key: tuple(value.shape) for key, value in module.state_dict().items()}
    run = written(graph, module, tmp_path, layers)
    module.double()
    for batch, height, width in ((2, 8, 12), (1, 5, 7)):
        pixels = (batch, config.in_channels, height * config.factor, width * config.factor)
        image = np.random.default_rng(0).random(pixels).astype(np.float32)
        found, wanted = run({"adapter_cond": image}), module(torch.from_numpy(image).double())
        assert error_of(found, [one.numpy() for one in wanted]) < tolerance
        sizes = [(channels, -(-pixels[2] // side)) for channels, side in config.features]
        assert [one.shape[1:3] for one in found] == [tuple(one.shape[1:3]) for one in wanted] == sizes


def features(name: str, batch: int, height: int, width: int) -> list[Array]:
    """Random features for a U-Net of two blocks, and for its middle."""
    random, half, (narrow, broad) = np.random.default_rng(2), (-(-height // 2), -(-width // 2)), (16, 32)
    shapes = [(narrow, *half) if name == "sdxl" else (narrow, height, width), (broad, *half)]
    shapes += [] if name == "no middle" else [(broad, *half)]
    return [random.standard_normal((batch, *shape)).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(("layers", "compute", "tolerance"), WRITTEN)
@pytest.mark.parametrize("name", UNETS)
def test_the_unet_adds_the_features(
    name: str, layers: type[Layers], compute: int, tolerance: float, tmp_path: Path
) -> None:
    """Beside a ControlNet's residuals. diffusers takes a feature for the middle from any adapter."""
    torch.manual_seed(0)
    module = randomised(UNet2DConditionModel(**UNET | UNETS[name]))
    graph = Graph("unet", compute)
    unet(UNetConfig.of(dict(module.config)), layers(graph), MoreInputs(features=True, residuals=True))
    run = written(graph, module, tmp_path, layers)
    module.double()
    for batch, height, width, length in SIZES:
        feeds = inputs(ControlNetConfig.of(BASE | CONFIGS.get(name, {})), batch, height, width, length)
        plain = {key: one for key, one in feeds.items() if not key.startswith("con")}
        given, (*down, mid) = features(name, batch, height, width), residuals({}, batch, height, width)
        more = {f"down_block_additional_residual_{index}": one for index, one in enumerate(down)}
        places = ("down_{}_0", "down_{}_1", "mid_{}")
        more |= {
            place.format("intrablock_additional_residual"): one
            for place, one in zip(places, given, strict=False)
        }
        wanted = module(
            **added(wide(plain)),
            down_block_additional_residuals=[torch.from_numpy(one).double() for one in down],
            mid_block_additional_residual=torch.from_numpy(mid).double(),
            down_intrablock_additional_residuals=[torch.from_numpy(one).double() for one in given],
        ).sample
        found = run(plain | more | {"mid_block_additional_residual": mid})
        assert error_of(found, [wanted.detach().numpy()]) < tolerance


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adapter_type", "style_adapter"),
        ("in_channels", 4),
        ("in_channels", True),
        ("channels", []),
        ("channels", [10**9]),
        ("num_res_blocks", 0),
        ("downscale_factor", 2.5),
        ("a_new_switch", True),
    ],
    ids=str,
)
def test_what_it_does_not_know_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"^controlnet/config.json: .*{key}.* is .*: expected"):
        T2IAdapterConfig.of({"_class_name": "T2IAdapter", key: value})


def test_levels_that_diffusers_cannot_run_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="channels"):
        T2IAdapterConfig.of({"adapter_type": "full_adapter_xl", "channels": [8, 16, 24, 32]})
    with pytest.raises(UnsupportedModelError, match="channels"):
        T2IAdapterConfig.of({"adapter_type": "light_adapter", "channels": [2]})
