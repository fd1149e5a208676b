"""Makes the changes of one module from the fields that a file has for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sdrt.adapters.change import Change, Shape
from sdrt.adapters.lora.changes import Added, Decomposed, FirstChannels, Scaled, is_by_rows
from sdrt.adapters.lora.modules import Module
from sdrt.adapters.lora.products import (
    Embedding,
    Hadamard,
    Kronecker,
    LowRank,
    Product,
    Tucker,
    TuckerHadamard,
    Whole,
)
from sdrt.adapters.lora.scales import Scales
from sdrt.adapters.lora.tensor import Tensor
from sdrt.errors import UnsupportedModelError

__all__ = ["Layer"]

Fields = Mapping[str, Tensor]
_LATENTS = 4
_FIRST = "conv_in"
_HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CORES = ("hada_t1", "hada_t2")


@dataclass
class Layer:
    """A module, and what a file has for it.

    Attributes:
        module: the module.
        fields: the tensors by their names in `sdrt.adapters.lora.fields`.
        used: the fields of which a change was made.
    """

    module: Module
    fields: dict[str, Tensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def changes(self, parameters: Mapping[str, Shape], scales: Scales) -> Iterator[tuple[str, Change]]:
        """The changes by the parameter's name. Fields for parameters that the model lacks are not `used`.

        Raises:
            UnsupportedModelError: tensors are missing, do not fit, or are not finite.
        """
        weight, bias = f"{self.module.name}.weight", f"{self.module.name}.bias"
        if weight in parameters and (change := self._weight(parameters[weight], scales)) is not None:
            yield weight, change
        if bias in parameters and (change := self._bias(parameters[bias], scales)) is not None:
            yield bias, change

    def _weight(self, shape: Shape, scales: Scales) -> Change | None:
        try:
            return self._fitting(shape, scales)
        except UnsupportedModelError:
            if self.module.name != _FIRST or len(shape) != 4 or shape[1] <= _LATENTS:
                raise
            narrow = (shape[0], _LATENTS, *shape[2:])
            try:
                change = self._fitting(narrow, scales)
            except UnsupportedModelError:
                change = None
            if change is None:
                raise
            return FirstChannels(shape=shape, change=change)

    def _fitting(self, shape: Shape, scales: Scales) -> Change | None:
        return self._scaled(shape) or self._product_change(shape, scales)

    def _scaled(self, shape: Shape) -> Change | None:
        """IA³. Other files may have a whole `weight`, which is no change."""
        if not self._has("weight", "on_input"):
            return None
        factors = self.fields["weight"]
        by_rows = self.fields["on_input"].scalar() == 0
        self._use("weight", "on_input")
        _check_count(factors, shape, 0 if by_rows else 1)
        factors.check_numbers()
        return Scaled(shape=shape, factors=factors, by_rows=by_rows)

    def _product_change(self, shape: Shape, scales: Scales) -> Change | None:
        product = self._product()
        if product is None:
            return None
        scale = self._scale(product.fit(shape), scales)
        for tensor in product.tensors:
            tensor.check_numbers()
        magnitude = self._magnitude(shape)
        if magnitude is None:
            return Added(shape=shape, product=product, scale=scale)
        tensor, by_rows = magnitude
        tensor.check_numbers()
        return Decomposed(shape=shape, product=product, scale=scale, magnitude=tensor, by_rows=by_rows)

    def _scale(self, rank: int | None, scales: Scales) -> float:
        self._use("alpha", "scale")
        alpha = self.fields["alpha"].scalar() if "alpha" in self.fields else None
        if "scale" in self.fields:
            return self.fields["scale"].scalar()
        return scales.scale(self.module, rank, alpha)

    def _magnitude(self, shape: Shape) -> tuple[Tensor, bool] | None:
        """DoRA's, and whether it is of the rows. PEFT's always is, as (1, out, 1, 1) for a convolution."""
        if "magnitude" in self.fields:
            self._use("magnitude")
            tensor = self.fields["magnitude"]
            _check_count(tensor, shape, 0)
            return tensor, True
        if "dora_scale" not in self.fields:
            return None
        self._use("dora_scale")
        return self.fields["dora_scale"], is_by_rows(self.fields["dora_scale"], shape)

    def _bias(self, shape: Shape, scales: Scales) -> Change | None:
        for name in ("diff_b", "b_norm", "up_bias"):
            if name in self.fields:
                self._use(name)
                product = Whole(self.fields[name])
                product.fit(shape)
                product.diff.check_numbers()
                rank = self.fields["down"].shape[0] if name == "up_bias" and "down" in self.fields else None
                return Added(shape=shape, product=product, scale=self._scale(rank, scales) if rank else 1.0)
        return None

    def _product(self) -> Product | None:
        """The kind, by the fields that it has."""
        found = self._low_rank() or self._hadamard() or self._kronecker()
        if found is not None:
            return found
        for name in ("diff", "w_norm"):
            if name in self.fields:
                return Whole(self._take(name))
        return None

    def _low_rank(self) -> Product | None:
        if self._any("embedding_up", "embedding_down"):
            return Embedding(self._take("embedding_up"), self._take("embedding_down"))
        if not self._any("up", "down", "mid"):
            return None
        pair = self._take("up"), self._take("down")
        return Tucker(*pair, self._take("mid")) if "mid" in self.fields else LowRank(*pair)

    def _hadamard(self) -> Product | None:
        if not self._any(*_HADAMARD, *_CORES):
            return None
        w1_a, w1_b, w2_a, w2_b = (self._take(name) for name in _HADAMARD)
        if not self._any(*_CORES):
            return Hadamard(w1_a, w1_b, w2_a, w2_b)
        t1, t2 = (self._take(name) for name in _CORES)
        return TuckerHadamard(w1_a, w1_b, w2_a, w2_b, t1, t2)

    def _kronecker(self) -> Product | None:
        if not any(name.startswith("lokr_") for name in self.fields):
            return None
        w1, w2 = (
            (self._take(half),) if half in self.fields else (self._take(f"{half}_a"), self._take(f"{half}_b"))
            for half in ("lokr_w1", "lokr_w2")
        )
        core = (self._take("lokr_t2"),) if "lokr_t2" in self.fields and len(w2) == 2 else ()
        return Kronecker(w1, w2 + core)

    def _has(self, *names: str) -> bool:
        return all(name in self.fields for name in names)

    def _any(self, *names: str) -> bool:
        return any(name in self.fields for name in names)

    def _use(self, *names: str) -> None:
        self.used |= self.fields.keys() & set(names)

    def _take(self, name: str) -> Tensor:
        """A field that the kind needs."""
        if name not in self.fields:
            other = next(iter(self.fields.values()))
            raise other.advised(f"has no {name} beside it")
        self._use(name)
        return self.fields[name]


def _check_count(tensor: Tensor, shape: Shape, axis: int) -> None:
    """Check that there is one number for each row (axis 0) or column (axis 1)."""
    count = shape[axis] if axis < len(shape) else 0
    if sum(size != 1 for size in tensor.shape) > 1 or max(tensor.shape, default=1) != count or not count:
        raise tensor.refused(f"is of shape {list(tensor.shape)}", f"{count} numbers")
