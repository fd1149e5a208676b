"""What ONNX Runtime's CUDA kernels refuse though their operators' schemas allow it: one table for all who must know.

:mod:`sdrt_export.channels_last` keeps to it before anything is traced, :mod:`sdrt_export.operators` while it is, and
:mod:`sdrt_export.evaluator` refuses in NumPy what the kernels refuse on a GPU. Each function gives the reason, or "".
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SPLIT_GELU_WIDTHS", "bias_add", "bias_split_gelu", "group_norm", "nhwc_conv"]

SPLIT_GELU_WIDTHS = (1280, 2560, 5120)
"""Half of the widths that BiasSplitGelu has kernels for."""
# Of a group: one block of threads sums it, two channels a thread.
_MOST_CHANNELS = 512


def group_norm(channels: int, groups: int) -> str:
    """Of GroupNorm and SkipGroupNorm."""
    each, rest = divmod(channels, groups)
    if rest:
        return f"{channels} channels in {groups} groups"
    if each % 2 or each > _MOST_CHANNELS:
        return f"a group norm of {each} channels in a group (an even number up to {_MOST_CHANNELS} is needed)"
    return ""


def nhwc_conv(pads: Sequence[int], group: int, dilations: Sequence[int]) -> str:
    """``pads`` begin at the top and on the left, and end at the bottom and on the right."""
    if group != 1 or set(dilations) != {1}:
        return "a grouped or dilated convolution"
    # cuDNN's frontend has no engine for it, or one whose result is wrong, by version.
    if list(pads[:2]) != list(pads[2:]):
        return f"a convolution with unlike padding at its two ends ({', '.join(map(str, pads))})"
    return ""


def bias_split_gelu(width: int) -> str:
    """``width`` is that of one half."""
    if width not in SPLIT_GELU_WIDTHS:
        return f"a split GELU of width {width} (one of {', '.join(map(str, SPLIT_GELU_WIDTHS))} is needed)"
    return ""


def bias_add(rank: int) -> str:
    """Of BiasAdd, whose input has ``rank`` dimensions."""
    return "" if rank == 3 else f"a sum with bias of {rank} dimensions (3 are needed)"
