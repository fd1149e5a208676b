"""The graph of each component as a function of its config, and the configs of published architectures."""

from sdrt_export.architectures.published import ARCHITECTURES

__all__ = ["ARCHITECTURES"]
