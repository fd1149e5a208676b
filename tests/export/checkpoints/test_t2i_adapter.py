"""A T2I-Adapter's tensors and config are the module's, however its file names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import T2IAdapter

from sdrt.errors import ModelError, UnsupportedModelError
from sdrt_export.architectures.t2i_adapter import T2IAdapterConfig
from sdrt_export.checkpoints.controlnet import check_fits, open_controlnet_part
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.parts import Part
from tests.export.checkpoints.ldm_files import SD1_UNET, SDXL_UNET, prefixed, random_state
from tests.safetensors_files import save_file

MODULES: dict[str, dict[str, Any]] = {
    "full": {"channels": [32, 64]},
    "grey": {"channels": [32, 64, 64], "in_channels": 1},
    "xl": {"channels": [64, 128, 128, 128], "adapter_type": "full_adapter_xl", "downscale_factor": 16},
    "xl grey": {
        **{"channels": [64, 128, 128, 128], "adapter_type": "full_adapter_xl"},
        **{"downscale_factor": 16, "in_channels": 1},
    },
    "light": {"channels": [32, 64], "adapter_type": "light_adapter", "num_res_blocks": 4},
}


def tencent(state: dict[str, Any], kind: str) -> dict[str, Any]:
    """The names of TencentARC's own program, whose full adapters number all layers together."""
    found = {}
    for name, tensor in state.items():
        own = name.removeprefix("adapter.")
        head, _, rest = own.partition(".resnets.")
        if kind == "light":
            own = own.replace(".resnets.", ".body.")
        elif rest:
            own = f"body.{2 * int(head[5:]) + int(rest[0])}{rest[1:]}"
        elif own.startswith("body."):
            _, level, last = own.split(".", 2)
            own = f"body.{2 * int(level)}.{last}"
        found[own] = tensor
    return found


@pytest.mark.parametrize("prefix", ["", "adapter."])
@pytest.mark.parametrize("names", ["tencent", "diffusers"])
@pytest.mark.parametrize("kind", MODULES)
def test_a_single_file(kind: str, names: str, prefix: str, tmp_path: Path) -> None:
    module = T2IAdapter(**MODULES[kind])
    state = {name: tensor.numpy() for name, tensor in random_state(module).items()}
    own = {name.removeprefix("adapter."): tensor for name, tensor in state.items()}
    tensors = prefixed(prefix, tencent(state, kind) if names == "tencent" else own)
    save_file(tensors, tmp_path / "t2i.safetensors")
    part = open_controlnet_part(tmp_path / "t2i.safetensors", SD1_UNET)
    assert T2IAdapterConfig.of(part.config) == T2IAdapterConfig.of(dict(module.config))
    assert set(part.tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(part.tensors[name], tensor)


def test_a_folder_of_diffusers(tmp_path: Path) -> None:
    module = T2IAdapter(**MODULES["xl grey"])
    module.save_pretrained(tmp_path)
    part = open_controlnet_part(tmp_path, SD1_UNET)
    assert T2IAdapterConfig.of(part.config) == T2IAdapterConfig.of(dict(module.config))
    assert set(part.tensors) == set(module.state_dict())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"body.0.block1.weight": (8, 8, 3, 3), "conv_in.weight": (8, 100, 3, 3)},
            "sees 100 numbers for a pixel",
        ),
        ({"body.0.block1.weight": (8, 8, 3, 3), "conv_in.weight": (8, 128, 3, 3)}, "in_channels is 2"),
        ({"body.0.block1.weight": (8, 8, 3, 3)}, "lacks conv_in.weight"),
        (
            {
                **{"body.0.block1.weight": (8, 8, 3, 3), "conv_in.weight": (8, 64, 3, 3)},
                **{"body.1.down_opt.op.weight": (8, 8, 3, 3)},
            },
            "has the tensor .*down_opt",
        ),
        (
            {"style_embedding": (1, 8, 9), "ln_pre.weight": (9,)},
            "is a T2I-Adapter for style, which sdrt cannot run",
        ),
    ],
    ids=["pixels", "channels", "no input", "convolutions between the levels", "style"],
)
def test_other_files_are_one_line(shapes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "t2i.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    with pytest.raises(ModelError, match=message) as error:
        open_controlnet_part(path, SD1_UNET)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "unet", "fits"),
    [
        (MODULES["full"], SD1_UNET, True),
        (MODULES["xl"], SDXL_UNET, True),
        # diffusers adds a last feature to the middle, if it has its size.
        (MODULES["grey"] | {"adapter_type": "full_adapter"}, SD1_UNET, False),
        (MODULES["xl"], SD1_UNET, False),
        ({"channels": [64, 128, 128, 128]}, SDXL_UNET, False),
        ({"channels": [32]}, SD1_UNET, False),
        ({"channels": [32, 96]}, SD1_UNET, False),
    ],
    ids=["SD 1", "SDXL", "a level more", "SDXL's", "SD 1's", "a level less", "another width"],
)
def test_it_must_have_the_features_that_the_unet_takes(
    config: dict[str, Any], unet: dict[str, Any], fits: bool
) -> None:
    part = Part(config=completed("T2IAdapter", config), tensors=None, place="c")  # type: ignore[arg-type]
    given = completed("UNet2DConditionModel", unet)
    if fits:
        check_fits(part, given, "model", channels=4, factor=8)
        return
    with pytest.raises(
        UnsupportedModelError, match=r"c is a T2I-Adapter for .* with features .*, as model takes them"
    ):
        check_fits(part, given, "model", channels=4, factor=8)
