"""Finds out what a single file's U-Net predicts: from the user, from markers, or from metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.safetensors_file import SafetensorsFile
from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.model_folder.source import PREDICTIONS
from sdrt_export.checkpoints.kinds import Kind

__all__ = ["PREDICTIONS", "check_prediction", "predicted", "scheduler_config"]

_EPSILON, _V = PREDICTIONS
# A1111 reads CompVis' config from a file of the same name beside the checkpoint. Such files are shorter than this.
_MOST_YAML = 1 << 16
_PARAMETERIZATION = re.compile(r"^\s*parameterization\s*:\s*[\"']?(\w+)", re.MULTILINE)
_UNET_CONFIG = re.compile(r"^\s*unet_config\s*:", re.MULTILINE)
# How CompVis, kohya's scripts and others write the same two words.
_WORDS = {
    "eps": _EPSILON,
    "epsilon": _EPSILON,
    "v": _V,
    "v_prediction": _V,
    "v-prediction": _V,
    "vpred": _V,
    "v_pred": _V,
}


def check_prediction(given: str | None) -> None:
    """Check an argument. Raises `RequestError`."""
    if given is not None and given not in PREDICTIONS:
        raise RequestError.expected(
            f"prediction type {given!r}", " or ".join(PREDICTIONS), argument="prediction_type"
        )


def predicted(kind: Kind, file: SafetensorsFile, in_channels: int, given: str | None) -> str:
    """What the U-Net predicts: by the user's choice, else the file's markers and metadata, else its kind's default.

    Raises:
        UnsupportedModelError: none of these says it. Both kinds of Stable Diffusion 2 are common.
    """
    if given is not None:
        return given
    for source in _SOURCES:
        if (found := source(file)) is not None:
            return found
    if kind.prediction is not None:
        return kind.prediction
    # Stable Diffusion 2's own model for inpainting predicts noise, and all others derive from it.
    if in_channels != 4:
        return _EPSILON
    raise UnsupportedModelError.advised(
        f"{file.path} is a checkpoint of {kind.title}, and does not say whether it predicts noise or v",
        "give --prediction-type v_prediction for models of 768×768 pixels, or epsilon for those of 512×512",
        path=file.path,
        argument="prediction_type",
    )


def _marker(file: SafetensorsFile) -> str | None:
    return _V if "v_pred" in file.tensors else None


def _yaml(file: SafetensorsFile) -> str | None:
    path = file.path.with_suffix(".yaml")
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MOST_YAML)
    except OSError:
        return None
    if found := _PARAMETERIZATION.search(text):
        return _known(path, found[1])
    return _EPSILON if _UNET_CONFIG.search(text) else None


def _known(path: Path, word: str) -> str:
    if word.lower() not in _WORDS:
        raise UnsupportedModelError.expected(
            f"{path} says parameterization: {word[:40]}", "eps or v", path=path
        )
    return _WORDS[word.lower()]


def _metadata(file: SafetensorsFile) -> str | None:
    """The texts of Stability's ModelSpec, which kohya's scripts and others write."""
    own = str(file.metadata.get("modelspec.prediction_type", "")).lower()
    if own in _WORDS:
        return _WORDS[own]
    architecture = str(file.metadata.get("modelspec.architecture", "")).lower()
    if not architecture.startswith("stable-diffusion-v2"):
        return None
    return _V if architecture.endswith("-v") else _EPSILON if architecture.endswith("-512") else None


_SOURCES: Sequence[Callable[[SafetensorsFile], str | None]] = (_marker, _yaml, _metadata)


def scheduler_config(kind: Kind, file: SafetensorsFile, prediction: str) -> dict[str, Any]:
    """The content of `scheduler_config.json`."""
    is_v = prediction == _V
    config = {
        **(kind.v_scheduler if is_v and kind.v_scheduler else kind.scheduler),
        "prediction_type": prediction,
    }
    if "ztsnr" in file.tensors:
        # Such models begin with pure noise, at a timestep that leading spacing leaves out (Lin et al. 2023,
        # arXiv:2305.08891).
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config
