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
    SDXL,
    SIZES,
    UNET,
    UNETS,
    Array,
    Feeds,
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


@pytest.mark.parametrize("compute", [FLOAT, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize("layers", [FusedLayers, Layers, CudaLayers])
@pytest.mark.parametrize("name", ADAPTERS)
def test_it_is_diffusers_t2i_adapter(name: str, layers: type[Layers], compute: int, tmp_path: Path) -> None:
    """Also where a side is odd, and is halved."""
    torch.manual_seed(0)
    module = randomised(T2IAdapter(**ADAPTERS[name]))
    config = T2IAdapterConfig.of(dict(module.config))
    graph = build(config, layers, compute)
    assert graph.sources == {key: tuple(value.shape) for key, value in module.state_dict().items()}
    run = written(graph, module, tmp_path, layers)
    for batch, height, width in ((2, 8, 12), (1, 5, 7)):
        pixels = (batch, config.in_channels, height * config.factor, width * config.factor)
        image = np.random.default_rng(0).random(pixels).astype(np.float32)
        found = run({"adapter_cond": image})
        with torch.no_grad():
            wanted = [one.numpy() for one in module.double()(torch.from_numpy(image).double())]
        module.float()
        assert [one.shape for one in found] == [one.shape for one in wanted]
        assert [
            (one.shape[1], -(-pixels[2] // side))
            for one, (_, side) in zip(found, config.features, strict=True)
        ] == [one.shape[1:3] for one in found]
        assert error_of(found, wanted) < (2e-6 if compute == FLOAT else 1e-2)


FEATURED: dict[str, dict[str, Any]] = {
    **UNETS,
    "attends last": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
    },
}


def features(name: str, batch: int, height: int, width: int) -> list[Array]:
    """Random features for a U-Net of two blocks, and for its middle if it is SDXL's."""
    random, half, (narrow, broad) = np.random.default_rng(2), (-(-height // 2), -(-width // 2)), (16, 32)
    attends = FEATURED[name].get("down_block_types", UNET["down_block_types"])[0].startswith("Cross")
    shapes = [(narrow, height, width) if attends else (narrow, *half), (broad, *half)]
    shapes += [] if name == "no middle" else [(broad, *half)]
    return [random.standard_normal((batch, *shape)).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with a ControlNet"])
@pytest.mark.parametrize("compute", [FLOAT, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize("layers", [FusedLayers, Layers, CudaLayers])
@pytest.mark.parametrize("name", FEATURED)
def test_the_unet_adds_the_features(
    name: str, layers: type[Layers], compute: int, both: bool, tmp_path: Path
) -> None:
    """Those of the middle, which diffusers ignores unless they fit, too. The last name's ControlNet has other sizes."""
    if both and name == "attends last":
        pytest.skip("two layers have other residuals")
    torch.manual_seed(0)
    module = randomised(UNet2DConditionModel(**UNET | FEATURED[name]))
    config, graph = UNetConfig.of(dict(module.config)), Graph("unet", compute)
    unet(config, layers(graph), MoreInputs(features=True, residuals=both))
    run = written(graph, module, tmp_path, layers)
    for batch, height, width, length in SIZES:
        feeds = inputs(ControlNetConfig.of(BASE | CONFIGS.get(name, {})), batch, height, width, length)
        plain: Feeds = {key: one for key, one in feeds.items() if not key.startswith("con")}
        given = features(name, batch, height, width)
        names = [f"{place}_intrablock_additional_residual" for place in ("down", "down", "mid")]
        named = {f"{one}_{index}" if index < 2 else one: index for index, one in enumerate(names)}
        more = {key: given[index] for key, index in named.items() if index < len(given)}
        theirs: dict[str, Any] = {}
        if both:
            *down, mid = residuals(FEATURED[name], batch, height, width)
            more |= {f"down_block_additional_residual_{index}": one for index, one in enumerate(down)}
            more["mid_block_additional_residual"] = mid
            theirs["down_block_additional_residuals"] = [torch.from_numpy(one).double() for one in down]
            theirs["mid_block_additional_residual"] = torch.from_numpy(mid).double()
        with torch.no_grad():
            wanted = module.double()(
                **added(wide(plain)),
                **theirs,
                down_intrablock_additional_residuals=[torch.from_numpy(one).double() for one in given],
            ).sample
        module.float()
        assert error_of(run(plain | more), [np.asarray(wanted)]) < (2e-6 if compute == FLOAT else 1e-2)


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
    assert SDXL  # the U-Net that such adapters are for
    with pytest.raises(UnsupportedModelError, match="channels"):
        T2IAdapterConfig.of({"adapter_type": "full_adapter_xl", "channels": [8, 16, 24, 32]})
    with pytest.raises(UnsupportedModelError, match="channels"):
        T2IAdapterConfig.of({"adapter_type": "light_adapter", "channels": [2]})
