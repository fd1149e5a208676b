"""T2I-Adapters with random weights for the tiny checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["KINDS", "write_adapter"]

KINDS: dict[str, dict[str, Any]] = {
    "sd1": {"channels": [16, 32]},
    "sd1-grey": {"channels": [16, 32], "in_channels": 1},
    "sd2-light": {"channels": [16, 32], "adapter_type": "light_adapter", "num_res_blocks": 1},
    "xl": {"channels": [16, 24, 32, 32], "adapter_type": "full_adapter_xl", "downscale_factor": 16},
}
"""The config of each kind. The first part of its name is the checkpoint's."""


def write_adapter(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a folder of diffusers. Returns it."""
    import diffusers

    from tests.parity.checkpoints import randomise

    randomise(diffusers.T2IAdapter(**KINDS[kind]), 70 + seed).save_pretrained(folder)
    return folder
