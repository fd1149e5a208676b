"""Whether a component fits into float16: compares its largest activation in float32 with float16's limit.

Inside some VAEs activations exceed 65,504, which makes images black in float16 (SDXL's does). U-Nets stay below. The
weights do not tell, so the exporter runs the component. If an activation comes near the limit, it exports in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sdrt_export.components import Component

__all__ = ["HEADROOM", "Activations", "measure"]

HEADROOM = 4.0
"""The factor by which activations in use may exceed those measured here."""
_LIMIT = float(np.finfo(np.float16).max)
_SIDE = 16

Inputs = dict[str, Tensor]


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


def measure(component: Component, model: Any) -> Activations:
    """Run ``model`` in float32 on the hardest inputs that need no data."""
    largest: dict[str, float] = {}
    with _watched(model, largest), torch.no_grad():
        for inputs in _HARDEST.get(component.name, _examples)(component, model):
            component.reference(model, inputs)
    used = {name: weight for name, weight in model.named_parameters() if name.rpartition(".")[0] in largest}
    largest |= {name: float(weight.detach().abs().max()) for name, weight in used.items()}
    module = max(largest, key=largest.__getitem__)
    return Activations(largest=largest[module], module=module)


@contextmanager
def _watched(model: nn.Module, largest: dict[str, float]) -> Iterator[None]:
    running: list[str] = []

    def see(name: str, made: Tensor) -> None:
        if made.is_floating_point() and made.numel():
            largest[name] = max(largest.get(name, 0.0), float(made.abs().max()))

    def enter(name: str) -> Callable[..., None]:
        return lambda module, given: running.append(name)

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: object, made: object) -> None:
            while running.pop() != name:
                pass
            if isinstance(made, Tensor):
                see(name, made)

        return hook

    fused = F.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        scale = options.get("scale")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        see(f"{running[-1]}.scores", query @ key.transpose(-1, -2) * scale)
        return fused(query, key, *rest, **options)

    handles = [
        handle
        for name, module in model.named_modules()
        for handle in (
            module.register_forward_pre_hook(enter(name)),
            module.register_forward_hook(leave(name)),
        )
    ]
    # diffusers and transformers look it up here at every call.
    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused
        for handle in handles:
            handle.remove()


def _examples(component: Component, model: Any) -> Iterator[Inputs]:
    for size in (1, 2):
        yield component.examples(model, size)


def _unet(component: Component, model: Any) -> Iterator[Inputs]:
    """Timesteps from pure noise to none."""
    for timestep in (999.0, 500.0, 1.0):
        yield {**component.examples(model, 2), "timestep": torch.tensor(timestep)}


def _images(model: Any) -> Tensor:
    """Images ``[4, channels, side, side]`` in -1 to 1: flat, edges, a ramp, and noise."""
    side, channels = _SIDE * int(2 ** (len(model.config.block_out_channels) - 1)), model.config.in_channels
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    noise = torch.rand(channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    single = [
        torch.ones(side, side),
        ((rows // 16 + columns // 16) % 2 * 2 - 1).float(),
        (rows + columns) / (side - 1) - 1,
    ]
    return torch.stack([*(one.expand(channels, side, side) for one in single), noise])


def _encoder(component: Component, model: Any) -> Iterator[Inputs]:
    yield {"sample": _images(model)}


def _decoder(component: Component, model: Any) -> Iterator[Inputs]:
    yield {"latent_sample": model.encode(_images(model)).latent_dist.mean}


_HARDEST: Mapping[str, Callable[[Component, Any], Iterator[Inputs]]] = {
    "unet": _unet,
    "vae_encoder": _encoder,
    "vae_decoder": _decoder,
}
