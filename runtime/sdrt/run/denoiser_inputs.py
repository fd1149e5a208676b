"""The inputs of a denoiser: their shapes, and those that are the same in every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.families import DenoiserSpec
from sdrt.request.fitted import FittedRequest
from sdrt.run.guidance import embedded_guidance
from sdrt.run.preparation import Prepared

if TYPE_CHECKING:
    from sdrt.onnx.session import Component

__all__ = ["check_fixed_size", "fixed_inputs", "fixed_length", "shapes_of"]


def shapes_of(
    component: Component,
    spec: DenoiserSpec,
    rows: int,
    sample: tuple[int, ...],
    others: Mapping[str, NDArray[Any]],
    added: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs for `rows` rows. `sample` is the shape of one row's latents and extra channels."""
    shapes = {spec.sample: (rows, *sample), spec.timestep: _timestep_shape(component, spec, rows)}
    shapes |= {name: (rows, *array.shape[1:]) for name, array in others.items()}
    shapes |= added
    return {name: shapes[name] for name in component.inputs}


def fixed_length(component: Component, name: str, axis: int) -> int | None:
    """The length of an axis of an input, or None if it is free."""
    shape = component.inputs[name].shape
    length = shape[axis] if axis < len(shape) else None
    return length if isinstance(length, int) else None


def _timestep_shape(component: Component, spec: DenoiserSpec, rows: int) -> tuple[int, ...]:
    """The shape of the timestep: a scalar, or a list with one number, with one for each row, or of a fixed length."""
    batch = component.inputs[spec.sample].shape[0]
    lengths = {batch: rows} if isinstance(batch, str) and batch else {}
    shape = component.inputs[spec.timestep].shape
    return tuple(size if isinstance(size, int) else lengths.get(size, 1) for size in shape)


def check_fixed_size(component: Component, spec: DenoiserSpec, size: Sequence[int], factor: int) -> None:
    """Raise `RequestError` for a size [h, w] of latents that a graph for only one size does not take."""
    fixed = [
        fixed_length(component, spec.sample, axis) or side for axis, side in zip((2, 3), size, strict=True)
    ]
    if fixed != list(size):
        height, width = (side * factor for side in fixed)
        found = "x".join(str(side * factor) for side in reversed(size))
        raise RequestError.expected(
            f"the image is {found}, but {component.name} was exported for one size",
            f"width {width} and height {height}, or a model exported with sdrt export, which takes any size",
            argument="width" if fixed[1] != size[1] else "height",
        )


def fixed_inputs(
    component: Component, spec: DenoiserSpec, request: FittedRequest, prepared: Prepared, batch: int
) -> dict[str, NDArray[Any]]:
    """The inputs that are the same in every step, if the denoiser has them: class labels, the guidance scale."""
    return _class_labels(component, spec, prepared, batch) | _guidance(component, spec, request, batch)


def _class_labels(
    component: Component, spec: DenoiserSpec, prepared: Prepared, batch: int
) -> dict[str, NDArray[Any]]:
    """The input with the class label of each row; empty if the denoiser has no such input."""
    if prepared.class_label is None:
        return {}
    return {spec.labels: np.full(batch, prepared.class_label, component.inputs[spec.labels].dtype)}


def _guidance(
    component: Component, spec: DenoiserSpec, request: FittedRequest, batch: int
) -> dict[str, NDArray[Any]]:
    """The input with the embedded guidance scale of each row; empty if the denoiser has no such input."""
    if not request.guidance_width:
        return {}
    embedded = embedded_guidance(request.guidance_scale, request.guidance_width)
    return {spec.guidance: np.tile(embedded, (batch, 1)).astype(component.inputs[spec.guidance].dtype)}
