"""The U-Net that is built from a config is diffusers' `UNet2DConditionModel`, for whatever the config can say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.evaluator import Evaluator
from sdrt_export.graphs.cuda import CudaLayers
from sdrt_export.graphs.files import write_graphs
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import FLOAT, Graph, Place
from sdrt_export.graphs.layers import Layers
from tests.export.built import UNET

Array = np.ndarray[Any, Any]

SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"use_linear_projection": True, "attention_head_dim": (2, 4), "center_input_sample": True},
    "sdxl": SDXL
    | {"transformer_layers_per_block": (1, 2), "projection_class_embeddings_input_dim": 64 + 6 * 8},
    "sdxl-refiner": SDXL | {"projection_class_embeddings_input_dim": 64 + 5 * 8},
    "upscaler": {"num_class_embeds": 10, "only_cross_attention": (True, False), "in_channels": 7},
    "lcm": {"time_cond_proj_dim": 12},
    "bk-sdm": {"mid_block_type": None},
    "middle without attention": {"mid_block_type": "UNetMidBlock2D"},
    "ssd-1b": {
        "transformer_layers_per_block": ((2,), (1,)),
        "reverse_transformer_layers_per_block": ((1, 2), (2, 1)),
    },
    "scale and shift": {
        "resnet_time_scale_shift": "scale_shift",
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 1.3,
        "mid_block_scale_factor": 1.2,
    },
    "uneven": {
        "layers_per_block": (1, 2),
        "conv_in_kernel": 1,
        "conv_out_kernel": 5,
        "time_embedding_dim": 40,
    },
    "waves": {"flip_sin_to_cos": False, "freq_shift": 1},
}
SIZES = ((2, 16, 24, 77), (1, 9, 11, 5))


def make(config: dict[str, Any]) -> UNet2DConditionModel:
    """A U-Net with random weights, of norms too."""
    torch.manual_seed(0)
    module = UNet2DConditionModel(**UNET | config).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return module


def inputs(config: UNetConfig, batch: int, height: int, width: int, length: int) -> dict[str, Array]:
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (batch, config.in_channels, height, width),
        "encoder_hidden_states": (batch, length, config.context_width),
    }
    if config.pooled_width:
        shapes |= {"text_embeds": (batch, config.pooled_width)}
    if config.guidance_width:
        shapes |= {"timestep_cond": (batch, config.guidance_width)}
    feeds: dict[str, Array] = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    if config.pooled_width:
        sizes = [8.0 * height, 8.0 * width, 3, 5, 8.0 * height, 8.0 * width]
        feeds["time_ids"] = np.tile([sizes[: config.num_time_ids]], (batch, 1))
    feeds["timestep"] = np.array(451.0)
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    if config.num_class_embeds:
        feeds["class_labels"] = np.arange(batch) % config.num_class_embeds
    return feeds


def expected(module: UNet2DConditionModel, feeds: dict[str, Array]) -> Array:
    given = {name: torch.from_numpy(value) for name, value in feeds.items()}
    added = {name: given.pop(name) for name in ("text_embeds", "time_ids") if name in given}
    with torch.no_grad():
        made = module(**given, added_cond_kwargs=added or None).sample
    return np.asarray(made)


def by_onnxruntime(graph: Graph, module: UNet2DConditionModel) -> Callable[[dict[str, Array]], Array]:
    """Run a graph whose weights are bound in memory, as torch has them."""
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    arrays = {name: np.ascontiguousarray(weight.value(tensors)) for name, weight in graph.weights.items()}
    places = {name: Place(location="weights") for name in arrays}
    options = ort.SessionOptions()
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    model = graph.model(places, dict.fromkeys(arrays, FLOAT)).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda feeds: np.asarray(session.run(None, feeds)[0])


def by_numpy(graph: Graph, module: UNet2DConditionModel, folder: Path) -> Callable[[dict[str, Array]], Array]:
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    write_graphs(folder, {"model.onnx": graph}, tensors)
    evaluator = Evaluator(folder / "model.onnx")
    return lambda feeds: evaluator.run(feeds, evaluator.outputs)[0]


def build(config: UNetConfig, layers: type[Layers]) -> Graph:
    graph = Graph("unet")
    unet(config, layers(graph))
    return graph


def worst(
    run: Callable[[dict[str, Array]], Array], module: UNet2DConditionModel, config: UNetConfig
) -> float:
    errors = []
    for size in SIZES:
        feeds = inputs(config, *size)
        wanted, found = expected(module, feeds), run(feeds)
        errors.append(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    return max(errors)


# The other targets differ in how layers are written, which a few configs show; the rest takes its time.
QUICK = [(name, FusedLayers) for name in CONFIGS] + [
    (name, layers) for name in ("sd1", "sdxl") for layers in (Layers, CudaLayers)
]
FULL = [(name, layers) for name in CONFIGS for layers in (Layers, CudaLayers) if (name, layers) not in QUICK]


@pytest.mark.parametrize(
    ("name", "layers"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.full) for pair in FULL)]
)
def test_it_is_diffusers_unet(name: str, layers: type[Layers], tmp_path: Path) -> None:
    """6e-7 to 1.1e-6 was measured."""
    module = make(CONFIGS[name])
    config = UNetConfig.of(dict(module.config))
    graph = build(config, layers)
    shapes = {key: shape for weight in graph.weights.values() for key, shape in weight.sources.items()}
    assert shapes == {key: tuple(value.shape) for key, value in module.state_dict().items()}
    run = by_numpy(graph, module, tmp_path) if layers is CudaLayers else by_onnxruntime(graph, module)
    assert worst(run, module, config) < 5e-6


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Whatever a config can say of a small U-Net."""
    count = draw(st.integers(1, 3))
    channels = tuple(draw(st.lists(st.sampled_from((8, 16, 24)), min_size=count, max_size=count)))
    attends = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    attends_up = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    layers = tuple(draw(st.lists(st.integers(1, 2), min_size=count, max_size=count)))
    heads = st.sampled_from((1, 2, 4))
    return {
        "block_out_channels": channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if one else "UpBlock2D" for one in attends_up),
        "mid_block_type": draw(st.sampled_from((None, "UNetMidBlock2D", "UNetMidBlock2DCrossAttn"))),
        "layers_per_block": layers if draw(st.booleans()) or len(set(layers)) > 1 else layers[0],
        **draw(depths(layers)),
        "attention_head_dim": draw(heads) if draw(st.booleans()) else tuple(draw(heads) for _ in channels),
        "only_cross_attention": draw(st.sampled_from((True, False)))
        if draw(st.booleans())
        else tuple(draw(st.booleans()) for _ in channels),
        "mid_block_only_cross_attention": draw(st.sampled_from((None, True, False))),
        "cross_attention_dim": draw(st.sampled_from((8, 24))),
        "use_linear_projection": draw(st.booleans()),
        "resnet_time_scale_shift": draw(st.sampled_from(("default", "scale_shift"))),
        "center_input_sample": draw(st.booleans()),
        "flip_sin_to_cos": draw(st.booleans()),
        "freq_shift": draw(st.integers(0, 1)),
        "norm_num_groups": draw(st.sampled_from((1, 4, 8))),
        "in_channels": draw(st.integers(1, 9)),
        "out_channels": draw(st.integers(1, 5)),
        "conv_in_kernel": draw(st.sampled_from((1, 3, 5))),
        "conv_out_kernel": draw(st.sampled_from((1, 3))),
        "time_embedding_dim": draw(st.sampled_from((None, 20))),
        "num_class_embeds": draw(st.sampled_from((None, 3))),
        "time_cond_proj_dim": draw(st.sampled_from((None, 6))),
        "downsample_padding": draw(st.integers(0, 1)),
        "mid_block_scale_factor": draw(st.sampled_from((1, 1.4))),
        **draw(sizes()),
    }


@st.composite
def depths(draw: st.DrawFn, layers: tuple[int, ...]) -> dict[str, Any]:
    """The layers of transformers: one number, one for each block, or nested; on the way up mirrored, or their own."""
    depth = st.integers(1, 2)

    def blocks(counts: list[int], *, nested: bool) -> tuple[Any, ...]:
        return tuple(
            tuple(draw(depth) for _ in range(n)) if nested and draw(st.booleans()) else draw(depth)
            for n in counts
        )

    kind = draw(st.sampled_from(("one", "each", "nested")))
    down = draw(depth) if kind == "one" else blocks(list(layers), nested=kind == "nested")
    is_nested = isinstance(down, tuple) and any(isinstance(one, tuple) for one in down)
    up = [n + 1 for n in reversed(layers)]
    back = blocks(up, nested=True) if is_nested or draw(st.booleans()) else None
    return {"transformer_layers_per_block": down, "reverse_transformer_layers_per_block": back}


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, Any]:
    """SDXL's pooled texts and sizes, or its refiner's, or none."""
    count = draw(st.sampled_from((0, 5, 6)))
    if not count:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64 + count * 8,
    }


def check(config: dict[str, Any]) -> None:
    module = make(config)
    read = UNetConfig.of(dict(module.config))
    assert worst(by_onnxruntime(build(read, FusedLayers), module), module, read) < 2e-5


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@settings(UNHURRIED, max_examples=8)
@given(configs())
def test_random_configs(config: dict[str, Any]) -> None:
    check(config)


@pytest.mark.full
@settings(UNHURRIED, max_examples=100)
@given(configs())
def test_many_random_configs(config: dict[str, Any]) -> None:
    check(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "mish"),
        ("dual_cross_attention", True),
        ("class_embed_type", "projection"),
        ("encoder_hid_dim_type", "text_proj"),
        ("time_embedding_type", "fourier"),
        ("attention_type", "gated"),
        ("cross_attention_norm", "layer_norm"),
        ("down_block_types", ["AttnDownBlock2D", "DownBlock2D"]),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("addition_embed_type", "image"),
        ("cross_attention_dim", [24, 32]),
        ("norm_num_groups", 5),
        ("block_out_channels", [10**9, 16]),
        ("block_out_channels", "wide"),
        ("layers_per_block", 10**6),
        ("attention_head_dim", 5),
        ("transformer_layers_per_block", [[1], [1]]),
        ("conv_in_kernel", 2),
        ("norm_eps", float("inf")),
        ("in_channels", True),
        ("a_new_switch", True),
    ],
    ids=str,
)
def test_what_it_does_not_know_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=f"unet/config.json: .*{key}.* is .*: expected") as error:
        UNetConfig.of(UNET | {key: value})
    assert error.value.component == "unet"


def test_private_keys_and_those_without_an_effect_pass() -> None:
    UNetConfig.of(UNET | {"_class_name": "UNet2DConditionModel", "sample_size": 64, "dropout": 0.1})
