"""Single files of every kind, opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt_export.checkpoints.single_file import SingleFile, open_single_file
from tests.export.checkpoints.ldm_files import TEXTS

KINDS = list(TEXTS)


def opened(path: Path, **arguments: Any) -> SingleFile:
    return open_single_file(path, **{"prediction_type": "epsilon", **arguments})


VAE_CONFIG: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
}
