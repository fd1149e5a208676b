"""Any values in a config: a graph of bounded size, or a refusal in one line that names the key."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sdrt.errors import SdrtError, UnsupportedModelError
from sdrt_export.architectures import ARCHITECTURES
from sdrt_export.architectures.clip_text import ClipTextConfig, clip_text
from sdrt_export.architectures.taesd import TaesdConfig, taesd_decoder
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig, vae_decoder, vae_encoder
from sdrt_export.architectures.vae_stages import decoder_parts, encoder_parts, write_stages
from sdrt_export.graphs import graph as graph_module
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.layers import Layers

SDXL = {
    **ARCHITECTURES["tiny"]["unet"],
    "transformer_layers_per_block": [[1], [2]],
    "reverse_transformer_layers_per_block": [[2, 1], [1, 1]],
    "attention_head_dim": [2, 4],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64 + 6 * 8,
    "time_cond_proj_dim": 12,
    "num_class_embeds": 10,
    "only_cross_attention": [True, False],
    "layers_per_block": [1, 1],
    "resnet_time_scale_shift": "scale_shift",
}
TAESD = {"decoder_block_out_channels": [8, 8], "num_decoder_blocks": [1, 2], "out_channels": 3}


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        7,
        8,
        16,
        32,
        33,
        64,
        768,
        1 << 14,
        1 << 20,
        1 << 31,
        1 << 63,
        10**400,
    ),
    *(0.0, -0.0, 0.5, 1.0, 1e-320, 1e29, 1e308, float("nan"), float("inf"), -float("inf"), -1.5),
    *("", "silu", "default", "scale_shift", "text_time", "gelu", "\ud800", "\n\x1b[2J", "x" * 100_000, "🦊"),
    *([], {}, [[]], [1], [16, 32], [[1], [2]], [None, None], [True, 1], ["a", "b"], [1] * 17, [64] * 16),
    *(
        {"a": {"b": [1]}},
        {1: 2},
        _nested(400),
        [[1, 2], 3],
        [[[1]]],
        [10**400],
        [1 << 14] * 16,
        ["DownBlock2D"] * 16,
    ),
    *(
        ["CrossAttnDownBlock2D"] * 2,
        ["CrossAttnUpBlock2D"] * 16,
        ["DownEncoderBlock2D"] * 2,
        "UNetMidBlock2D",
    ),
]


def _unet(values: Mapping[str, Any], g: Layers) -> None:
    unet(UNetConfig.of(values), g)


def _clip(values: Mapping[str, Any], g: Layers) -> None:
    clip_text(ClipTextConfig.of(values, projected=True), g)


def _vae(values: Mapping[str, Any], g: Layers) -> None:
    config = VaeConfig.of(values)
    for write in (vae_encoder, vae_decoder):
        write(config, type(g)(Graph("vae")))
    for parts in (encoder_parts, decoder_parts):
        write_stages(parts(config), type(g)(Graph("vae")))


def _taesd(values: Mapping[str, Any], g: Layers) -> None:
    taesd_decoder(TaesdConfig.of(values), g)


Case = tuple[
    Mapping[str, Any], Callable[[Mapping[str, Any], Layers], None], Callable[[Mapping[str, Any]], Any]
]
CASES: dict[str, Case] = {
    "unet": (ARCHITECTURES["tiny"]["unet"], _unet, UNetConfig.of),
    "sdxl": (SDXL, _unet, UNetConfig.of),
    "text encoder": (ARCHITECTURES["tiny"]["text_encoder"], _clip, ClipTextConfig.of),
    "vae": (ARCHITECTURES["tiny"]["vae"], _vae, VaeConfig.of),
    "taesd": (TAESD, _taesd, TaesdConfig.of),
}


def changed(numbers: random.Random, base: Mapping[str, Any]) -> dict[str, Any]:
    """A config with a few other values."""
    values: dict[str, Any] = copy.deepcopy(dict(base))
    for _ in range(numbers.choice([1, 1, 2, 3, 8])):
        key = numbers.choice(
            [*SDXL, *base, *base, "norm_eps", "freq_shift", "mid_block_scale_factor", "new_key"]
        )
        kind = numbers.randrange(6)
        if kind == 0:
            values.pop(key, None)
        elif kind == 1 and isinstance(values.get(key), (list, tuple)) and values[key]:
            values[key] = [*values[key]][: numbers.randrange(3)] * numbers.randrange(1, 4)
        elif kind == 2 and isinstance(values.get(key), (list, tuple)) and values[key]:
            values[key] = list(values[key])
            values[key][numbers.randrange(len(values[key]))] = numbers.choice(ODD)
        elif kind == 3 and isinstance(values.get(key), int):
            values[key] = values[key] * numbers.choice([-1, 0, 2, 3, 1000]) + numbers.choice([0, 1])
        else:
            values[key] = copy.deepcopy(numbers.choice(ODD))
    return values


def check(name: str, seed: int, count: int, build: float) -> None:
    """Read `count` configs of a case; build graphs of the share `build` of those that are taken."""
    numbers, (base, write, read) = random.Random(seed), CASES[name]
    taken = built = 0
    refusals: list[str] = []
    for _ in range(count):
        values = changed(numbers, base)
        try:
            if numbers.random() < build:
                write(values, numbers.choice([Layers, FusedLayers])(Graph("part")))
                built += 1
            else:
                read(values)
            taken += 1
        except SdrtError as error:
            refusals.append(str(error))
    for refusal in refusals:
        assert "\n" not in refusal
        assert len(refusal) < 500
        refusal.encode()
    assert count / 30 < taken < count * 0.9, (taken, built)


@pytest.fixture
def small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "_MOST_NODES", 3000)


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("name", CASES)
def test_some_configs(name: str) -> None:
    check(name, 0, 600, 0.1)


@pytest.mark.full
@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("name", CASES)
def test_many_configs(name: str) -> None:
    check(name, 1, 20_000, 0.1)


BLOCKS = {
    "block_out_channels": [32] * 16,
    "down_block_types": ["CrossAttnDownBlock2D"] * 16,
    "up_block_types": ["CrossAttnUpBlock2D"] * 16,
    "attention_head_dim": 1,
    "layers_per_block": 3,
}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("unet", {**BLOCKS, "transformer_layers_per_block": 7}),
        ("text encoder", {"num_hidden_layers": 128}),
        ("taesd", {"decoder_block_out_channels": [8] * 16, "num_decoder_blocks": 64}),
    ],
)
def test_the_largest_graphs_take_seconds(name: str, changes: dict[str, Any]) -> None:
    """0.3 to 2.5 s of CPU time were measured."""
    base, write, _ = CASES[name]
    graph, begin = Graph("part"), time.process_time()
    write({**base, **changes}, Layers(graph))
    assert time.process_time() - begin < 20
    assert len(graph.weights) > 1000


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        ("unet", {**BLOCKS, "transformer_layers_per_block": 64, "layers_per_block": 64}, "50,000 operators"),
        ("unet", {"block_out_channels": [16000, 16000]}, "16,000,000,000 weights"),
        ("vae", {"block_out_channels": [8192] * 4, "layers_per_block": 16}, "16,000,000,000 weights"),
        ("text encoder", {"hidden_size": 16384, "intermediate_size": 65536}, "16,000,000,000 weights"),
        (
            "taesd",
            {"decoder_block_out_channels": [4096] * 16, "num_decoder_blocks": 64},
            "16,000,000,000 weights",
        ),
    ],
)
def test_a_graph_of_terabytes(name: str, changes: dict[str, Any], what: str) -> None:
    base, write, _ = CASES[name]
    if name == "text encoder":
        changes = {**changes, "num_hidden_layers": 128}
    begin = time.process_time()
    with pytest.raises(UnsupportedModelError, match=f"config.json describes a network of more than {what}"):
        write({**base, **changes}, Layers(Graph("part")))
    assert time.process_time() - begin < 20
