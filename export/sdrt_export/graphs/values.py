"""Values in a graph under construction, some of which are written only when they are used."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Affine", "Attention", "ImagePrompt", "Sum", "Value"]


class Value:
    """A value in the graph. `channels` is the size of its channels, the last dimension of tokens and vectors.

    With `make`, the value is written when its name is first asked for.
    """

    is_image = False
    """Whether it is an image. Only targets whose operators need to know this set it."""

    def __init__(self, channels: int, name: str = "", make: Callable[[], str] | None = None) -> None:
        self.channels, self._name, self._make = channels, name, make

    @property
    def name(self) -> str:
        """Its name in the graph."""
        if not self._name:
            assert self._make is not None
            self._name = self._make()
        return self._name

    def like(self, name: str) -> Value:
        """A value of the same shape."""
        made = Value(self.channels, name)
        made.is_image = self.is_image
        return made


class Affine(Value):
    """A product with weights plus a bias. The bias may be added later, together with other things."""

    def __init__(
        self, channels: int, *, product: Callable[[], str], bias: str, whole: Callable[[], str]
    ) -> None:
        super().__init__(channels, make=whole)
        self.product, self.bias = product, bias


class Sum(Value):
    """``x + skip``, not added yet."""

    def __init__(self, x: Value, skip: Value, total: Callable[[Sum], str]) -> None:
        super().__init__(skip.channels, make=lambda: total(self))
        self.x, self.skip = x, skip

    @property
    def is_open(self) -> bool:
        """Whether nothing has used it yet."""
        return not self._name

    def close(self, name: str) -> None:
        """Take a value that a fused operator computed."""
        self._name = name


class ImagePrompt:
    """Tokens `[batch, length, width]` of images, and by how much an attention adds what it finds in them.

    `number` is the IP-Adapter's, `scale` a scalar in the type of the activations, and `mask` how much each of the
    attention's pixels sees, `[1 or batch, pixels, 1]`; empty if all see everything.
    """

    def __init__(self, number: int, tokens: Value, scale: str, mask: str = "") -> None:
        self.number, self.tokens, self.scale, self.mask = number, tokens, scale, mask


class Attention:
    """The weights of one attention: names of its projections, heads, and width of all heads together.

    `packed` is a name for projections of the same input that are stored together, such as "to_{}" for `to_qkv` and
    `to_kv`. Without one, they are always apart.
    """

    def __init__(
        self,
        path: str,
        *,
        heads: int,
        width: int,
        names: tuple[str, str, str, str] = ("to_q", "to_k", "to_v", "to_out.0"),
        bias: bool = False,
        causal: bool = False,
        packed: str = "",
    ) -> None:
        self.path, self.heads, self.width, self.bias, self.causal = path, heads, width, bias, causal
        self.packed = packed
        self.query, self.key, self.value, self.out = (f"{path}.{name}" for name in names)

    def image_prompt(self, number: int) -> tuple[str, str]:
        """The names of the key's and the value's projection of the IP-Adapter `number`, as diffusers has them."""
        return f"{self.path}.processor.to_k_ip.{number}", f"{self.path}.processor.to_v_ip.{number}"

    @property
    def scale(self) -> float:
        """The factor of the scores."""
        return float((self.width // self.heads) ** -0.5)
