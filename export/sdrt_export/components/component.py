"""What the exporter needs to know about a component: how its graph is written, and how it can be tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.rng import Generator
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt_export.architectures.vae_stages import Part
from sdrt_export.graphs.layers import Layers
from sdrt_export.tensors.array import Array

__all__ = ["Component", "Config", "Inputs", "noise", "whole_numbers"]

Inputs = dict[str, NDArray[Any]]
Config = Mapping[str, Any]


def _nothing(config: Config, tensors: Mapping[str, Array]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Component:
    """How one component is written and tried.

    Attributes:
        name: of the component and its folder in the model.
        checkpoint: its folder in the checkpoint.
        library, class_name: of its class in `model_index.json`.
        write: writes the graph of a config. Its last argument says whether the caller gives indices that a search on
            the device would find.
        examples: gives example inputs for a config, of one of three sizes. Sizes 1, which is odd, and 2 are checked (0
            and 2 if a graph cannot take odd sizes).
        outputs: the names of the graph's outputs.
        parts: the parts of the graph in stages. None without one.
        extended: gives the same component with more inputs. None for others than the U-Net.
        unused: the beginnings of names of tensors that checkpoints have for this class and that no graph needs.
        about: gives other entries in the manifest, from a config and the checkpoint's tensors.
    """

    name: str
    checkpoint: str
    library: str
    class_name: str
    write: Callable[[Config, Layers, bool], None]
    examples: Callable[[Config, int], Inputs]
    outputs: Callable[[Config], list[str]]
    parts: Callable[[Config], list[Part]] | None = None
    extended: Callable[[MoreInputs], Component] | None = None
    unused: tuple[str, ...] = ()
    about: Callable[[Config, Mapping[str, Array]], dict[str, Any]] = _nothing


def noise(*shape: int, seed: int) -> NDArray[np.float32]:
    """Standard normal values of `shape`, the same for the same `seed`."""
    return Generator(seed).randn(shape)


def whole_numbers(limit: int, *shape: int, seed: int) -> NDArray[np.int64]:
    """Whole numbers from 0 to below `limit`, the same for the same `seed`."""
    return np.random.default_rng(seed).integers(limit, size=shape)
