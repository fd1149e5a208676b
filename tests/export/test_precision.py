"""Whether a component fits into float16: the same activations as torch's modules, and what counts beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.components import COMPONENTS, Component
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.memory import bind
from sdrt_export.precision import hardest_inputs, magnitudes, measure
from sdrt_export.tensors.finite import FiniteTensors
from sdrt_export.tensors.lazy import Tensors
from sdrt_export.verify import modules
from tests.export.built import config_of

Checkpoints = Callable[[str], Path]


def load(folder: Path, name: str) -> tuple[Component, Any]:
    component = COMPONENTS[name]
    return component, modules.load_part(open_folder(folder), component.checkpoint)


def tensors_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def measured(component: Component, module: nn.Module) -> Any:
    return measure(component, config_of(module), tensors_of(module))


def by_torch(component: Component, module: nn.Module) -> dict[str, float]:
    """The largest magnitude that each module of torch returns, on the same inputs."""
    found: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def see(part: nn.Module, given: Any, made: Any) -> None:
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                found[name] = max(found.get(name, 0.0), float(made.abs().max()))

        return see

    handles = [part.register_forward_hook(watch(name)) for name, part in module.named_modules() if name]
    for inputs in hardest_inputs(component, config_of(module), tensors_of(module)):
        modules.run(component, module, inputs)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize(
    "variant", ["sd1", *(pytest.param(one, marks=pytest.mark.full) for one in ("sd2", "deep", "mixed"))]
)
def test_every_layer_s_activation_is_torch_s(checkpoint: Checkpoints, variant: str, name: str) -> None:
    component, module = load(checkpoint(variant), name)
    found = magnitudes(component, config_of(module), tensors_of(module))
    expected = by_torch(component, module)
    layers = {
        path
        for path, part in module.named_modules()
        if path in expected and isinstance(part, (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm))
    }
    assert len(layers) > 10
    assert layers <= found.keys()
    for path in layers:
        if path.endswith("final_layer_norm"):
            continue  # also what `clip_skip` takes, which torch computes elsewhere
        # Sums in another order: 5e-6 was measured, and 6e-5 behind the norms of a flat image, whose spread is tiny.
        assert found[path] == pytest.approx(expected[path], rel=3e-4), path
    # Modules that return sums have other sums inside, which float16 must hold too.
    for path in expected.keys() & found.keys() - layers:
        assert found[path] > (1 - 3e-4) * expected[path], path
    # A few activation functions are left out, whose results are no larger than what they are given.
    assert max(found.values()) > (1 - 3e-4) * max(expected.values())


def test_a_layer_that_overflows_is_named(checkpoint: Checkpoints) -> None:
    component, vae = load(checkpoint("sd1"), "vae_decoder")
    vae.decoder.up_blocks[0].resnets[0].conv1.weight.data *= 1e5
    found = measured(component, vae)
    assert not found.fit
    assert found.module == "decoder.up_blocks.0.resnets.0.conv1"
    # The encoder's weights are in the same folder, but not in the same graph.
    assert measured(COMPONENTS["vae_encoder"], vae).fit


def test_a_weight_beyond_float16_counts_too(checkpoint: Checkpoints) -> None:
    component, vae = load(checkpoint("sd1"), "vae_decoder")
    vae.decoder.conv_in.weight.data[0, 0, 0, 0] = 1e5
    assert measured(component, vae).module == "decoder.conv_in.weight"


@pytest.mark.parametrize(
    ("name", "attention", "query", "key"),
    [
        ("text_encoder", "text_model.encoder.layers.1.self_attn", "q_proj", "k_proj"),
        ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1", "to_q", "to_k"),
        ("vae_decoder", "decoder.mid_block.attentions.0", "to_q", "to_k"),
    ],
)
def test_scores_of_attention_count_too(
    checkpoint: Checkpoints, name: str, attention: str, query: str, key: str
) -> None:
    """Queries and keys that float16 holds, with products that it does not."""
    component, module = load(checkpoint("sd1"), name)
    assert measured(component, module).fit
    part = module.get_submodule(attention)
    for projection in (query, key):
        part.get_submodule(projection).weight.data *= 1e3
        if part.get_submodule(projection).bias is not None:
            part.get_submodule(projection).bias.data.zero_()
    found = measured(component, module)
    assert not found.fit
    assert found.module == f"{attention}.scores"


def test_what_is_not_a_number_does_not_fit(checkpoint: Checkpoints) -> None:
    component, vae = load(checkpoint("sd1"), "vae_decoder")
    vae.decoder.conv_in.weight.data *= 1e30
    vae.decoder.mid_block.resnets[0].conv1.weight.data *= 1e30
    found = measured(component, vae)
    assert not found.fit
    assert found.largest == float("inf") or found.largest > 1e20


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64]
)
def test_other_types_are_measured_as_they_are(
    checkpoint: Checkpoints, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Without copies of the file: a layer's weights are widened when it runs."""
    component, vae = load(checkpoint("sd1"), "vae_decoder")
    narrow = {name: tensor.to(dtype).contiguous() for name, tensor in vae.state_dict().items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    tensors = FiniteTensors("vae", Tensors.of_files([tmp_path / "narrow.safetensors"]))
    wide = {name: tensor.float().numpy() for name, tensor in narrow.items()}
    ours, theirs = (magnitudes(component, config_of(vae), one) for one in (tensors, wide))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_are_views_of_the_mapped_file(
    checkpoint: Checkpoints, tmp_path: Path, dtype: torch.dtype
) -> None:
    component, vae = load(checkpoint("sd1"), "vae_decoder")
    save_file({name: tensor.to(dtype) for name, tensor in vae.state_dict().items()}, tmp_path / "file")
    tensors = Tensors.of_files([tmp_path / "file"])
    graph = Graph("vae_decoder")
    component.write(config_of(vae), Layers(graph), False)
    weights = bind(graph, FiniteTensors("vae", tensors)).weights
    assert len(weights) > 50
    for name, array in weights.items():
        assert np.shares_memory(array, tensors.sources[name].file.raw(name)), name
