"""Whether a component fits into float16: compares its largest activation in float32 with float16's limit.

Inside some VAEs activations exceed 65,504, which makes images black in float16 (SDXL's does). U-Nets stay below. The
weights do not show this, so the exporter runs the component. If an activation comes near the limit, it exports in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import helper

from sdrt_export.architectures.vae import VaeConfig, vae_encoder
from sdrt_export.components import Component
from sdrt_export.components.component import Config, Inputs
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import FLOAT, Graph
from sdrt_export.graphs.memory import Once, bind
from sdrt_export.graphs.watched import WatchedLayers, add_extremes
from sdrt_export.tensors.array import Array

__all__ = ["HEADROOM", "Activations", "hardest_inputs", "magnitudes", "measure"]

HEADROOM = 4.0
"""The factor by which activations in use may exceed those measured here."""
_LIMIT = float(np.finfo(np.float16).max)
_SIDE = 16

Tensors = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Activations:
    """The largest magnitude of a component's activations and weights, and the name of its module.

    It includes attention's scores, which kernels without a fused softmax store. Their name is that of the attention
    with ``.scores``.
    """

    largest: float
    module: str

    @property
    def fit(self) -> bool:
        """Whether they fit into float16 with some headroom."""
        return self.largest * HEADROOM <= _LIMIT

    def entry(self) -> dict[str, Any]:
        """The entry in the manifest."""
        return {**asdict(self), "largest": float(f"{self.largest:.4g}")}


def measure(component: Component, config: Config, tensors: Tensors) -> Activations:
    """Run the component in float32 on the hardest inputs that need no data."""
    found = magnitudes(component, config, tensors)
    module = max(found, key=found.__getitem__)
    return Activations(largest=found[module], module=module)


def magnitudes(component: Component, config: Config, tensors: Tensors) -> dict[str, float]:
    """The largest magnitude of each module's activations, and of each weight.

    Each input runs on its own, and an activation is kept until the layers after it have run, so that this takes no more
    memory than a step.
    """
    graph = Graph(component.name)
    layers = WatchedLayers(graph)
    component.write(config, layers, False)
    bound = bind(graph, tensors)
    outputs = add_extremes(bound.model, layers.seen)
    found = {name: _magnitude(weight, bound.types[name]) for name, weight in bound.weights.items()}
    opened = Once(bound)
    for inputs in hardest_inputs(component, config, tensors):
        made = opened.run(list(outputs), inputs)
        for path, end in zip(outputs.values(), made, strict=True):
            found[path] = max(found.get(path, 0.0), _magnitude(end))
    return found


def hardest_inputs(component: Component, config: Config, tensors: Tensors) -> Iterator[Inputs]:
    """Inputs that make large activations. A decoder's are what its encoder makes of images."""
    return _HARDEST.get(component.name, _examples)(component, config, tensors)


def _magnitude(array: Array, dtype: int = FLOAT) -> float:
    """The largest magnitude in an array of ONNX's type `dtype`. Infinity if it contains NaN."""
    if not array.size:
        return 0.0
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
    if kind.itemsize < 4:
        # Without their sign, bits are in the order of the numbers, and NumPy compares them 30 times as fast.
        bits = array.view(f"u{kind.itemsize}") & (2 ** (8 * kind.itemsize - 1) - 1)
        largest = float(bits.max().view(kind))
    else:
        largest = max(float(array.max()), -float(array.min()))
    return float("inf") if np.isnan(largest) else largest


def _examples(component: Component, config: Config, tensors: Tensors) -> Iterator[Inputs]:
    for size in (1, 2):
        yield component.examples(config, size)


def _unet(component: Component, config: Config, tensors: Tensors) -> Iterator[Inputs]:
    """Timesteps from pure noise to none."""
    for timestep in (999.0, 500.0, 1.0):
        yield {**component.examples(config, 2), "timestep": np.array(timestep, np.float32)}


def _images(config: VaeConfig) -> Iterator[Array]:
    """Images ``[1, channels, side, side]`` in -1 to 1: flat, edges, a ramp, and noise."""
    side, channels = _SIDE * config.factor, config.in_channels
    rows, columns = np.indices((side, side))
    noise = np.random.default_rng(0).uniform(-1, 1, (channels, side, side))
    for image in (
        np.ones((side, side)),
        (rows // 16 + columns // 16) % 2 * 2 - 1,
        (rows + columns) / (side - 1) - 1,
        noise,
    ):
        yield np.broadcast_to(image, (1, channels, side, side)).astype(np.float32)


def _encoder(component: Component, config: Config, tensors: Tensors) -> Iterator[Inputs]:
    for image in _images(VaeConfig.of(config)):
        yield {"sample": image}


def _decoder(component: Component, config: Config, tensors: Tensors) -> Iterator[Inputs]:
    """The latents of those images."""
    shape, graph = VaeConfig.of(config), Graph("vae_encoder")
    vae_encoder(shape, FusedLayers(graph))
    encoder = Once(bind(graph, tensors))
    for image in _images(shape):
        (moments,) = encoder.run(["latent_parameters"], {"sample": image})
        yield {"latent_sample": moments[:, : shape.latent_channels]}


_HARDEST: Mapping[str, Callable[[Component, Config, Tensors], Iterator[Inputs]]] = {
    "unet": _unet,
    "vae_encoder": _encoder,
    "vae_decoder": _decoder,
}
