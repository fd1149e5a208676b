"""Changes to a checkpoint's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

UNET_WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
