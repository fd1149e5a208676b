"""The ControlNet that is built from a config, and the U-Net that takes its residuals, are diffusers' classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.graph_kind import CONTROLLED_GRAPH
from sdrt_export.architectures.controlnet import controlnet
from sdrt_export.architectures.controlnet_config import ControlNetConfig
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.evaluator import Evaluator
from sdrt_export.graphs.cuda import CudaLayers
from sdrt_export.graphs.files import write_graphs
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import FLOAT, HALF, Graph, Place
from sdrt_export.graphs.layers import Layers

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
BASE: dict[str, Any] = UNET | {"conditioning_embedding_out_channels": (4, 8, 12)}
SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "use_linear_projection": True,
    "attention_head_dim": (2, 4),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "projection_class_embeddings_input_dim": 64 + 6 * 8,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"use_linear_projection": True, "attention_head_dim": (2, 4), "layers_per_block": 2},
    "sdxl": SDXL,
    "bgr": {"controlnet_conditioning_channel_order": "bgr"},
    "pools": {"global_pool_conditions": True},
    "one channel, eight pixels a latent": {
        "conditioning_channels": 1,
        "conditioning_embedding_out_channels": (4, 6, 8, 10),
    },
    "middle without attention": {"mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1.3},
    "three blocks": {
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        "downsample_padding": 0,
        "only_cross_attention": (False, True, True),
        "resnet_time_scale_shift": "scale_shift",
        "num_class_embeds": 5,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
}
SIZES = ((2, 16, 24, 77), (1, 9, 11, 5))


def randomised(module: Any) -> Any:
    """The module with random weights, of norms and "zero convolutions" too."""
    for parameter in module.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


def make(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return randomised(ControlNetModel(**BASE | config))


def inputs(config: ControlNetConfig, batch: int, height: int, width: int, length: int) -> Feeds:
    random, shape, factor = np.random.default_rng(0), config.unet, config.factor
    feeds = {
        "sample": random.standard_normal((batch, shape.in_channels, height, width)),
        "encoder_hidden_states": random.standard_normal((batch, length, shape.context_width)),
        "controlnet_cond": random.random(
            (batch, config.conditioning_channels, height * factor, width * factor)
        ),
        "timestep": np.array(451.0),
        "conditioning_scale": np.full(len(config.residuals) + 1, 0.7),
    }
    if shape.pooled_width:
        feeds["text_embeds"] = random.standard_normal((batch, shape.pooled_width))
        feeds["time_ids"] = np.tile([[8.0 * height, 8.0 * width, 3, 5, 8.0, 9.0]], (batch, 1))
    made = {name: value.astype(np.float32) for name, value in feeds.items()}
    if shape.num_class_embeds:
        made["class_labels"] = np.arange(batch) % shape.num_class_embeds
    return made


def added(given: dict[str, Any]) -> dict[str, Any]:
    extra = {name: given.pop(name) for name in ("text_embeds", "time_ids") if name in given}
    return {**given, "added_cond_kwargs": extra or None}


def wide(feeds: Feeds) -> dict[str, Any]:
    """torch's arguments in float64, so that its own rounding, which is as large as ours, does not count."""
    given = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return {name: one.double() if one.is_floating_point() else one for name, one in given.items()}


def expected(module: Any, feeds: Feeds) -> list[Array]:
    """diffusers' residuals in float64. Those of a ControlNet that pools are of one pixel, and are spread here."""
    given = wide(feeds)
    given["conditioning_scale"] = 0.7
    plain = {**given, "conditioning_scale": 1.0}
    with torch.no_grad():
        down, mid = module(**added(given), return_dict=False)
        module.register_to_config(global_pool_conditions=False)
        shapes, last = module(**added(plain), return_dict=False)
    return [
        np.broadcast_to(one.numpy(), like.shape)
        for one, like in zip((*down, mid), (*shapes, last), strict=True)
    ]


Run = Callable[[Feeds], list[Array]]


def written(graph: Graph, module: Any, folder: Path, layers: type[Layers]) -> Run:
    """Run a graph's file: that of target cuda with NumPy."""
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    write_graphs(folder, {"model.onnx": graph}, tensors)
    if layers is CudaLayers:
        evaluator = Evaluator(folder / "model.onnx")
        return lambda feeds: evaluator.run(feeds, evaluator.outputs)
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda feeds: [np.asarray(one) for one in session.run(None, feeds)]


def error_of(found: list[Array], wanted: list[Array]) -> float:
    return max(
        float(np.abs(one - other).max() / np.abs(other).max())
        for one, other in zip(found, wanted, strict=True)
    )


def build(config: ControlNetConfig, layers: type[Layers], compute: int = FLOAT) -> Graph:
    graph = Graph("controlnet", compute)
    controlnet(config, layers(graph))
    return graph


def check(config: dict[str, Any], layers: type[Layers], folder: Path) -> float:
    module = make(config)
    read = ControlNetConfig.of(dict(module.config))
    graph = build(read, layers)
    assert graph.sources == {key: tuple(value.shape) for key, value in module.state_dict().items()}
    run, errors = written(graph, module, folder, layers), []
    for size in SIZES:
        feeds = inputs(read, *size)
        wanted, found = expected(make(config).double(), feeds), run(feeds)
        assert [one.shape for one in found] == [one.shape for one in wanted]
        errors.append(error_of(found, wanted))
    return max(errors)


@pytest.mark.parametrize(
    ("name", "layers"),
    [(name, FusedLayers) for name in CONFIGS]
    + [(name, layers) for name in ("sd1", "sdxl", "bgr", "pools") for layers in (Layers, CudaLayers)],
)
def test_it_is_diffusers_controlnet(name: str, layers: type[Layers], tmp_path: Path) -> None:
    """6e-7 to 9.2e-7 was measured."""
    assert check(CONFIGS[name], layers, tmp_path) < 2e-6


@pytest.mark.parametrize("layers", [Layers, CudaLayers])
@pytest.mark.parametrize("name", ["sd1", "sdxl", "pools"])
def test_in_float16(name: str, layers: type[Layers], tmp_path: Path) -> None:
    """0.1 % to 0.3 % was measured, a few roundings to 11 bits."""
    module = make(CONFIGS[name])
    read = ControlNetConfig.of(dict(module.config))
    run = written(build(read, layers, HALF), module, tmp_path, layers)
    feeds = inputs(read, *SIZES[0])
    assert error_of(run(feeds), expected(module.double(), feeds)) < 1e-2


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Whatever a config can say of a small ControlNet."""
    count = draw(st.integers(1, 3))
    channels = tuple(draw(st.lists(st.sampled_from((8, 16, 24)), min_size=count, max_size=count)))
    attends = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    heads, depth = st.sampled_from((1, 2, 4)), st.integers(1, 2)
    return {
        "block_out_channels": channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends),
        "mid_block_type": draw(st.sampled_from(("UNetMidBlock2D", "UNetMidBlock2DCrossAttn"))),
        "layers_per_block": draw(st.integers(1, 2)),
        "transformer_layers_per_block": draw(depth)
        if draw(st.booleans())
        else tuple(draw(depth) for _ in channels),
        "attention_head_dim": draw(heads) if draw(st.booleans()) else tuple(draw(heads) for _ in channels),
        "only_cross_attention": draw(st.booleans()),
        "cross_attention_dim": draw(st.sampled_from((8, 24))),
        "use_linear_projection": draw(st.booleans()),
        "resnet_time_scale_shift": draw(st.sampled_from(("default", "scale_shift"))),
        "flip_sin_to_cos": draw(st.booleans()),
        "freq_shift": draw(st.integers(0, 1)),
        "norm_num_groups": draw(st.sampled_from((1, 4, 8))),
        "in_channels": draw(st.integers(1, 9)),
        "num_class_embeds": draw(st.sampled_from((None, 3))),
        "downsample_padding": draw(st.integers(0, 1)),
        "mid_block_scale_factor": draw(st.sampled_from((1, 1.4))),
        "conditioning_channels": draw(st.integers(1, 4)),
        "conditioning_embedding_out_channels": tuple(
            draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
        ),
        "controlnet_conditioning_channel_order": draw(st.sampled_from(("rgb", "bgr"))),
        "global_pool_conditions": draw(st.booleans()),
        **draw(
            st.sampled_from(({}, {key: SDXL[key] for key in SDXL if key.startswith(("addition", "proj"))}))
        ),
    }


@settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, max_examples=8)
@given(configs())
def test_random_configs(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    assert check(config, FusedLayers, tmp_path_factory.mktemp("graph")) < 1e-5


@pytest.mark.full
@settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, max_examples=100)
@given(configs())
def test_many_random_configs(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    assert check(config, FusedLayers, tmp_path_factory.mktemp("graph")) < 1e-5


# --- the U-Net ---------------------------------------------------------------------------------------------


UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
    "sdxl": SDXL | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")},
    "no middle": {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "mid_block_type": None},
}


def residuals(config: dict[str, Any], batch: int, height: int, width: int) -> list[Array]:
    """Random residuals for a U-Net of two blocks with one layer each."""
    random, half = np.random.default_rng(1), (-(-height // 2), -(-width // 2))
    narrow, broad = UNET["block_out_channels"]
    shapes = [(narrow, height, width)] * 2 + [(narrow, *half), *[(broad, *half)] * 2]
    return [random.standard_normal((batch, *shape)).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("compute", [FLOAT, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize("layers", [FusedLayers, Layers, CudaLayers])
@pytest.mark.parametrize("name", UNETS)
def test_the_unet_adds_the_residuals(name: str, layers: type[Layers], compute: int, tmp_path: Path) -> None:
    """8e-7 was measured in float32, 0.3 % in float16."""
    torch.manual_seed(0)
    module = randomised(UNet2DConditionModel(**UNET | UNETS[name]))
    config, graph = UNetConfig.of(dict(module.config)), Graph("unet", compute)
    unet(config, layers(graph), CONTROLLED_GRAPH.inputs)
    run = written(graph, module, tmp_path, layers)
    for batch, height, width, length in SIZES:
        feeds = inputs(ControlNetConfig.of(BASE | CONFIGS.get(name, {})), batch, height, width, length)
        plain = {key: one for key, one in feeds.items() if not key.startswith("con")}
        *down, mid = given = residuals(UNETS[name], batch, height, width)
        names = [f"down_block_additional_residual_{index}" for index in range(len(down))]
        found = run(plain | dict(zip([*names, "mid_block_additional_residual"], given, strict=True)))
        with torch.no_grad():
            wanted = module.double()(
                **added(wide(plain)),
                down_block_additional_residuals=[torch.from_numpy(one).double() for one in down],
                mid_block_additional_residual=torch.from_numpy(mid).double(),
            ).sample
        assert error_of(found, [np.asarray(wanted)]) < (2e-6 if compute == FLOAT else 1e-2)
        module.float()


def test_the_plain_unet_has_the_same_weights_and_no_more_inputs() -> None:
    config = UNetConfig.of(UNET | UNETS["sd1"])
    plain, controlled = Graph("unet"), Graph("unet")
    unet(config, FusedLayers(plain))
    unet(config, FusedLayers(controlled), CONTROLLED_GRAPH.inputs)
    assert plain.weights == controlled.weights
    places = dict.fromkeys(plain.weights, Place(location="x"))
    model = plain.model(places, dict.fromkeys(plain.weights, FLOAT))
    assert [one.name for one in model.graph.input] == ["sample", "timestep", "encoder_hidden_states"]


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "mish"),
        ("class_embed_type", "projection"),
        ("encoder_hid_dim", 32),
        ("addition_embed_type", "text"),
        ("mid_block_type", None),
        ("layers_per_block", (1, 2)),
        ("down_block_types", ["AttnDownBlock2D", "DownBlock2D"]),
        ("block_out_channels", [10**9, 16]),
        ("controlnet_conditioning_channel_order", "hsv"),
        ("conditioning_embedding_out_channels", []),
        ("conditioning_channels", 0),
        ("global_pool_conditions", "yes"),
        ("time_embedding_dim", 40),
        ("a_new_switch", True),
    ],
    ids=str,
)
def test_what_it_does_not_know_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(
        UnsupportedModelError, match=rf"^controlnet/config.json: .*{key}.* is .*: expected"
    ) as error:
        ControlNetConfig.of(BASE | {key: value})
    assert error.value.component == "controlnet"
    assert "optimum" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"_class_name": "ControlNetUnionModel"}, "ControlNet-Union"),
        ({"num_control_type": 6}, "ControlNet-Union"),
        ({"_class_name": "ControlNetXSAdapter"}, "ControlNet-XS"),
        ({"_class_name": "UNetControlNetXSModel"}, "ControlNet-XS"),
        ({"base_model_channel_sizes": [320]}, "ControlNet-XS"),
        ({"_class_name": "SparseControlNetModel"}, "SparseCtrl"),
        ({"_class_name": "MultiAdapter"}, "several T2I-Adapters"),
    ],
    ids=str,
)
def test_other_networks_are_refused_by_their_names(config: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{name} .*: expected a ControlNet \(ControlNetModel\)"):
        ControlNetConfig.of(BASE | config)
