"""Target `cuda` without a GPU: NumPy runs its graphs, and their results are the model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import UNet2DConditionModel

from sdrt.errors import UnsupportedModelError
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.components import COMPONENTS, Component
from sdrt_export.evaluator import Evaluator
from sdrt_export.verify.modules import load_part
from tests.export.built import build, reference, write
from tests.export.cuda_graphs import CUDA, worst_error


@pytest.fixture(scope="session")
def traced(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The torch module and the graph, by NumPy, of a checkpoint of `checkpoints.VARIANTS`."""
    root, made = tmp_path_factory.mktemp("channels_last"), {}

    def get(variant: str, name: str, dtype: torch.dtype) -> tuple[Component, Any, Evaluator]:
        key = (variant, name, dtype)
        if key not in made:
            module = load_part(open_folder(checkpoint(variant)), COMPONENTS[name].checkpoint)
            folder = root / f"{variant}-{name}-{dtype}"
            made[key] = (COMPONENTS[name], module, evaluator(COMPONENTS[name], module, dtype, folder))
        return made[key]

    return get


def evaluator(component: Component, module: Any, dtype: torch.dtype, folder: Path) -> Evaluator:
    write(component, module, CUDA, folder, half=dtype == torch.float16)
    return Evaluator(folder / "model.onnx")


# sd2 projects with linears, deep has other depths; mixed has a U-Net of kinds of blocks that have no such form, and
# both have VAEs with odd numbers of channels in a group, of which there are no kernels.
REFUSED = [
    ("mixed", "unet"),
    *((variant, f"vae_{half}") for variant in ("deep", "mixed") for half in ("encoder", "decoder")),
]


MATRIX = [
    *(pytest.param("sd1", name, id=f"sd1-{name}") for name in COMPONENTS),
    *(
        pytest.param(variant, name, id=f"{variant}-{name}", marks=pytest.mark.full)
        for variant in ("sd2", "deep", "mixed")
        for name in COMPONENTS
        if (variant, name) not in REFUSED
    ),
]


@pytest.mark.parametrize(("variant", "name"), MATRIX)
def test_it_is_the_model(traced: Callable[..., Any], variant: str, name: str) -> None:
    """In float32 a wrong layout or packing has nowhere to hide: 5e-8 to 3e-6 was measured."""
    made = traced(variant, name, torch.float32)
    assert max(worst_error(*made, size) for size in (0, 1, 2)) < 1e-5


@pytest.mark.parametrize(("variant", "name"), MATRIX)
def test_in_float16_too(traced: Callable[..., Any], variant: str, name: str) -> None:
    """Every result rounded to 11 bits: 7e-4 to 3e-3 was measured, of the largest output."""
    made = traced(variant, name, torch.float16)
    assert max(worst_error(*made, size) for size in (1, 2)) < 6e-3


@pytest.mark.parametrize("size", [(40, 48), (41, 48), (40, 55), (43, 61)])
def test_the_encoder_halves_every_size_as_torch_does(
    traced: Callable[..., Any], size: tuple[int, int]
) -> None:
    """diffusers pads it at the bottom and on the right alone; the graph all around, with zeros before the weights."""
    component, module, encoder = traced("sd1", "vae_encoder", torch.float32)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).numpy()
    (expected,) = reference(component, module, {"sample": x}).values()
    (found,) = encoder.run({"sample": x}, encoder.outputs)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_zeros_before_the_weights_change_no_product(checkpoint: Callable[[str], Path]) -> None:
    """Exactly: of whole numbers, which float32 sums in any order."""
    vae = load_part(open_folder(checkpoint("sd1")), "vae")
    down = vae.encoder.down_blocks[0].downsamplers[0]
    random = torch.Generator().manual_seed(0)
    down.conv.weight.data = torch.randint(-9, 9, down.conv.weight.shape, generator=random).float()
    down.conv.bias.data.zero_()
    weight = build(COMPONENTS["vae_encoder"], vae, CUDA)["model.onnx"].weights[
        "encoder.down_blocks.0.downsamplers.0.conv.weight"
    ]
    assert weight.shape == (8, 4, 4, 8)
    tensors = {name: tensor.numpy() for name, tensor in vae.state_dict().items()}
    kernel = torch.from_numpy(weight.value(tensors)).permute(0, 3, 1, 2)
    for height in range(2, 9):
        for width in range(2, 9):
            x = torch.randint(-9, 9, (1, 8, height, width), generator=random).float()
            with torch.no_grad():
                assert torch.equal(torch.nn.functional.conv2d(x, kernel, stride=2, padding=1), down(x))


@pytest.mark.parametrize(
    ("variant", "name"), [pair for pair in REFUSED if pair != ("mixed", "unet")], ids=lambda pair: pair
)
def test_groups_without_a_kernel_are_refused_by_name(
    checkpoint: Callable[[str], Path], variant: str, name: str
) -> None:
    module = load_part(open_folder(checkpoint(variant)), "vae")
    with pytest.raises(
        UnsupportedModelError,
        match=rf"{name.removeprefix('vae_')}.*norm.*[13] channels in a group.*'portable'",
    ):
        build(COMPONENTS[name], module, CUDA)


def test_gelu_with_kernels_is_split(tmp_path: Path) -> None:
    """BiasSplitGelu is for three widths, which the tiny models have none of."""
    torch.manual_seed(0)
    module = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(320,),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()
    made = evaluator(COMPONENTS["unet"], module, torch.float32, tmp_path / "model")
    kinds = Counter(node.op_type for node in ir.load(tmp_path / "model" / "model.onnx").graph)
    assert kinds["BiasSplitGelu"] == 4
    assert worst_error(COMPONENTS["unet"], module, made, 1) < 1e-5


def test_the_end_of_a_text_is_given(traced: Callable[..., Any]) -> None:
    _, _, encoder = traced("sd1", "text_encoder", torch.float32)
    assert encoder.specs["eos_index"].shape == ("batch",)
    ids = np.arange(9).reshape(1, 9)
    feeds = {"input_ids": ids, "added_token_embeddings": np.zeros((1, 32), np.float32)}
    last, pooled = encoder.run(feeds | {"eos_index": np.array([4])}, ["last_hidden_state", "pooler_output"])
    np.testing.assert_array_equal(pooled[0], last[0, 4])
