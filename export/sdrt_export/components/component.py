"""What the exporter needs to know about a component: how to load, build and check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdrt_export.architectures.vae_stages import Part
from sdrt_export.graphs.layers import Layers

__all__ = ["Component", "Config", "Inputs", "noise"]

Inputs = dict[str, Tensor]
Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Component:
    """How one component is loaded, built and checked.

    Attributes:
        name: of the component and its folder in the model.
        checkpoint: its folder in the checkpoint.
        library: the library of its class.
        model_class: the class of its torch module.
        build: makes a module of that class from a config.
        write: writes the graph of a config. Its last argument says whether the caller gives indices that a search on
            the device would find.
        parts: the parts of the graph in stages. None without one.
        examples: gives example inputs of one of three sizes. Sizes 1, which is odd, and 2 are checked (0 and 2 if a
            graph cannot take odd sizes).
        outputs: the names of the graph's outputs, in the order of ``reference``.
        reference: runs the torch module.
        about: gives the model's other entries in the manifest.
    """

    name: str
    checkpoint: str
    library: str
    model_class: type[nn.Module]
    build: Callable[[Config], nn.Module]
    write: Callable[[Config, Layers, bool], None]
    examples: Callable[[Any, int], Inputs]
    outputs: Callable[[Any], list[str]]
    reference: Callable[[Any, Inputs], list[Tensor]]
    about: Callable[[Any], dict[str, Any]] = lambda model: {}
    parts: Callable[[Config], list[Part]] | None = None


def noise(*shape: int, seed: int) -> Tensor:
    """Standard normal values of ``shape``, the same for the same ``seed``."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
