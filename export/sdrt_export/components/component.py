"""What the exporter needs to know about a component: how to load, trace and check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdrt_export import channels_last
from sdrt_export.targets import Target

__all__ = ["Axes", "Component", "Inputs", "noise"]

Inputs = dict[str, Tensor]
Axes = dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Component:
    """How one component is loaded, traced and checked.

    Attributes:
        name: of the component and its folder in the model.
        checkpoint: its folder in the checkpoint.
        library: the library of its class.
        model_class: the class of its torch module.
        build: makes a module of that class from a config.
        axes: the dynamic axes of each input. A model has the inputs that its examples have.
        examples: gives example inputs of one of three sizes. Size 0 is traced. Sizes 1, which is odd, and 2 are checked
            (0 and 2 if a graph cannot take odd sizes).
        outputs: the names of the graph's outputs, in the order of ``forward`` and ``reference``.
        forward: makes the forward that is traced for a target.
        reference: runs the unchanged torch module.
        check: raises UnsupportedModelError for a config that ``forward`` does not support.
        about: gives the model's other entries in the manifest.
        defaults: the values of inputs that callers may leave out.
        hosted: inputs that only targets with ``host_indices`` take.
        blocks: gives the module that a target with ``channels_last`` walks over.
    """

    name: str
    checkpoint: str
    library: str
    model_class: type[nn.Module]
    build: Callable[[Mapping[str, Any]], nn.Module]
    axes: Mapping[str, Axes]
    examples: Callable[[Any, int], Inputs]
    outputs: Callable[[Any], list[str]]
    forward: Callable[[Target], Callable[..., Any]]
    reference: Callable[[Any, Inputs], list[Tensor]]
    check: Callable[[Any], None] = lambda model: None
    about: Callable[[Any], dict[str, Any]] = lambda model: {}
    defaults: Callable[[Any], Inputs] = lambda model: {}
    hosted: tuple[str, ...] = ()
    blocks: Callable[[Any], nn.Module] | None = None

    def inputs(self, model: Any, size: int, target: Target) -> Inputs:
        """The example inputs of one size that ``target`` takes."""
        given = self.examples(model, size)
        return {
            name: value for name, value in given.items() if target.host_indices or name not in self.hosted
        }

    def check_for(self, model: Any, target: Target) -> None:
        """Raise UnsupportedModelError for a config that ``target``'s forward does not support."""
        self.check(model)
        if target.channels_last and self.blocks is not None:
            channels_last.check(self.blocks(model), self.name)


def noise(*shape: int, seed: int) -> Tensor:
    """Standard normal values of ``shape``, the same for the same ``seed``."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
