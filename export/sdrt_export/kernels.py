"""Inputs that ONNX Runtime's CUDA kernels refuse though their operators' schemas allow them.

:mod:`sdrt_export.graphs.cuda` checks this when it writes a layer, and :mod:`sdrt_export.evaluator` when it runs graphs
with NumPy. Each function returns the reason for a refusal, or "".
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SPLIT_GELU_WIDTHS", "bias_add", "bias_split_gelu", "group_norm", "nhwc_conv"]

SPLIT_GELU_WIDTHS = (1280, 2560, 5120)
"""The widths of one half for which BiasSplitGelu has kernels."""
# The limit for one group, because one block of threads sums a group, with two channels per thread.
_MOST_CHANNELS = 512


def group_norm(channels: int, groups: int) -> str:
    """The reason why GroupNorm and SkipGroupNorm refuse these groups, or ""."""
    each, rest = divmod(channels, groups)
    if rest:
        return f"{channels} channels in {groups} groups"
    if each % 2 or each > _MOST_CHANNELS:
        return f"a group norm of {each} channels in a group (an even number up to {_MOST_CHANNELS} is needed)"
    return ""


def nhwc_conv(pads: Sequence[int], group: int, dilations: Sequence[int]) -> str:
    """The reason why NhwcConv refuses a convolution, or "".

    ``pads`` are those at the top, on the left, at the bottom and on the right.
    """
    if group != 1 or set(dilations) != {1}:
        return "a grouped or dilated convolution"
    # Depending on its version, cuDNN's frontend has no engine for this, or one with wrong results.
    if list(pads[:2]) != list(pads[2:]):
        return f"a convolution with different padding at its two ends ({', '.join(map(str, pads))})"
    return ""


def bias_split_gelu(width: int) -> str:
    """The reason why BiasSplitGelu refuses a ``width`` of one half, or ""."""
    if width not in SPLIT_GELU_WIDTHS:
        return f"a split GELU of width {width} (one of {', '.join(map(str, SPLIT_GELU_WIDTHS))} is needed)"
    return ""


def bias_add(rank: int) -> str:
    """The reason why BiasAdd refuses an input of ``rank`` dimensions, or ""."""
    return "" if rank == 3 else f"a sum with bias of {rank} dimensions (3 are needed)"
