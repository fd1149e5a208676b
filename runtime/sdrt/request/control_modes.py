"""How a ControlNet shares an image with the prompt: the modes of A1111's extension, and diffusers' guess mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["BALANCED", "CONTROL_MODES", "GUESS", "ControlMode"]

_SOFT = 0.825
_LEAST_OUTPUTS = 10
"""The outputs of SDXL's ControlNets, the smallest that A1111's extension knows. Those of Stable Diffusion 1 have 13."""


def _even(count: int) -> list[float]:
    return [1.0] * count


def _soft(count: int) -> list[float]:
    """The weights of sd-webui-controlnet. SDXL's network is shorter, and takes the first of the 13 weights.

    For a smaller network, the weights end at 1, as for Stable Diffusion 1.
    """
    last = 12 if count >= _LEAST_OUTPUTS else count - 1
    return [_SOFT ** max(last - index, 0) for index in range(count)]


def _soft_features(count: int) -> list[float]:
    """The weights of sd-webui-controlnet for T2I-Adapters."""
    return [*(0.25, 0.62, 0.825), *_even(count)][:count]


def _guess(count: int) -> list[float]:
    """The weights of diffusers, which go from 0.1 to 1 however many there are."""
    return [10 ** (index / max(count - 1, 1) - 1) for index in range(count)]


@dataclass(frozen=True, kw_only=True)
class ControlMode:
    """One mode.

    Attributes:
        title: its name in metadata, which is that of A1111's extension.
        weights: for a number of outputs, the weight of each, from the finest layer to the coarsest.
        feature_weights: the same for a T2I-Adapter.
        prompt_only: whether it guides only the half with the prompt.
    """

    title: str
    weights: Callable[[int], list[float]] = _even
    feature_weights: Callable[[int], list[float]] = _even
    prompt_only: bool = False


BALANCED = "balanced"
"""The name of the usual mode."""
CONTROL_MODES: Mapping[str, ControlMode] = {
    BALANCED: ControlMode(title="Balanced"),
    "prompt": ControlMode(title="My prompt is more important", weights=_soft, feature_weights=_soft_features),
    "control": ControlMode(
        title="ControlNet is more important", weights=_soft, feature_weights=_soft_features, prompt_only=True
    ),
}
"""The modes that users name."""
GUESS = ControlMode(title=CONTROL_MODES["control"].title, weights=_guess, prompt_only=True)
"""diffusers' guess mode. The nearest of A1111's modes has almost the same weights for Stable Diffusion 1 and 2."""
