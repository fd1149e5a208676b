"""How many of a text encoder's last layers to skip, as images' metadata count them."""

from __future__ import annotations

__all__ = ["SkipOfLabel"]


class SkipOfLabel(int):
    """How many of the text encoder's last layers to skip, counted from the very last one, as metadata do.

    diffusers counts from the layer that a model usually takes. In SDXL this is the last but one.
    """

    @classmethod
    def read(cls, text: str) -> SkipOfLabel:
        """Read A1111's number, which is 1 for the last layer. Raises `ValueError`."""
        return cls(int(text) - 1)

    def from_layer(self, layer: int) -> int:
        """The number to skip, counted from a model's usual layer. It is at least 0, as in other programs."""
        return max(0, int(self) - layer)
